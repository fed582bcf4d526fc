"""`client.images` of both clients, against the image service with a scripted engine."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from PIL import Image

import orrery
from orrery.v1 import image_pb2 as pb
from orrery.v1 import image_pb2_grpc
from services.runtime import errors as served
from tests.fakes.image_server import MODEL_NAME, RunningImageServer, image_server
from tests.fakes.scripted_images import ScriptedEngine, ScriptedSettings
from tests.unit.client.both_clients import Either
from tests.unit.client.fake_retrieval import fail

PROMPT = "a red circle left of a blue square"
MakeEither = Callable[..., Either]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RunningImageServer]:
    async with image_server() as running:
        yield running


@pytest_asyncio.fixture(params=["sync", "async"])
async def make_either(request: pytest.FixtureRequest) -> AsyncIterator[MakeEither]:
    """Makes clients of one kind, and closes them at the end."""
    made: list[Either] = []

    def make(target: str, **settings: Any) -> Either:
        made.append(Either(request.param, target, **settings))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def client(make_either: MakeEither, server: RunningImageServer) -> Either:
    return make_either(server.target)


def png_of(color: str, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "PNG")
    return file.getvalue()


def pixels(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


# --- making -----------------------------------------------------------------------------------


async def test_generate_returns_pictures_with_their_recipes(client: Either, tmp_path: Path) -> None:
    made = await client.call(
        "images.generate", PROMPT, n=2, seed=7, width=64, height=32, num_steps=4, request_id="r-1"
    )
    assert (made.request_id, made.model) == ("r-1", MODEL_NAME)
    assert [(each.seed, each.width, each.height) for each in made.images] == [
        (7, 64, 32),
        (8, 64, 32),
    ]
    assert made.image.recipe.num_steps == 4
    assert made.image.recipe.scheduler == "dpm_solver_pp_2m"
    assert made.image.recipe.strength is None
    assert made.image.similarity is None
    assert made.timing.total_ns >= made.timing.denoise_ns > 0
    assert made.prompt_tokens > 0
    made.image.save(tmp_path / "out.png")
    assert pixels((tmp_path / "out.png").read_bytes()).size == (64, 32)


async def test_every_option_reaches_the_service(client: Either, server: RunningImageServer) -> None:
    made = await client.call(
        "images.generate",
        PROMPT,
        negative_prompt="text",
        num_steps=3,
        guidance_scale=2.5,
        guidance_rescale=0.5,
        scheduler="euler",
        karras_sigmas=True,
        seed=1,
    )
    recipe = made.image.recipe
    assert recipe == orrery.ImageRecipe(1, 3, 2.5, 0.5, "euler", 0.0, True, None)
    request = server.engine.requests[0]
    assert (request.prompt, request.negative_prompt) == (PROMPT, "text")
    ddim = await client.call("images.generate", PROMPT, scheduler="ddim", eta=0.25, num_steps=2)
    assert ddim.image.recipe.eta == 0.25


async def test_stream_tells_progress_previews_pictures_and_the_end_in_this_order(
    client: Either,
) -> None:
    events = await client.all("images.stream", PROMPT, num_steps=4, seed=3, preview_every=2)
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        *["ImageProgress"] * 3,  # it waits, and two steps
        "ImagePreview",
        *["ImageProgress"] * 2,
        "GeneratedImage",
        "ImagesDone",
    ]
    assert [e.step for e in events if isinstance(e, orrery.ImageProgress)] == [0, 1, 2, 3, 4]
    preview = events[3]
    assert (preview.image_index, preview.step, preview.latent) == (0, 2, None)
    assert pixels(preview.png).size == (64, 64)


async def test_latent_previews_are_numbers(client: Either) -> None:
    events = await client.all(
        "images.stream", PROMPT, num_steps=4, preview_every=2, preview_kind="latent"
    )
    preview = next(each for each in events if isinstance(each, orrery.ImagePreview))
    assert preview.png is None
    assert preview.latent.shape == (4, 8, 8)
    values = struct.unpack(f"<{4 * 8 * 8}f", preview.latent.data)
    assert set(values) == {0.5}


async def test_callbacks_are_told_of_steps_and_previews(client: Either) -> None:
    steps: list[int] = []
    previews: list[bytes | None] = []
    made = await client.call(
        "images.generate",
        PROMPT,
        num_steps=12,
        on_progress=lambda progress: steps.append(progress.step),
        on_preview=lambda preview: previews.append(preview.png),
    )
    assert steps == list(range(13))
    assert len(previews) == 2  # every five steps, as the service has it
    assert len(made.images) == 1


async def test_no_previews_are_asked_for_where_nobody_waits_for_them(
    client: Either, server: RunningImageServer
) -> None:
    await client.call("images.generate", PROMPT, num_steps=12)
    assert server.engine.requests[0].preview_every == 0


@pytest.mark.parametrize("option", [{"preview_every": 2}, {"preview_kind": "latent"}])
async def test_previews_that_nobody_waits_for_are_not_made(
    client: Either, server: RunningImageServer, option: dict[str, Any]
) -> None:
    (name,) = option
    for call, arguments in (("images.generate", ()), ("images.edit", (png_of("red"),))):
        with pytest.raises(TypeError, match=f"{name}: .*on_preview"):
            await client.call(call, PROMPT, *arguments, **option)
        await client.call(call, PROMPT, *arguments, num_steps=4, **dict.fromkeys(option))
    assert [request.preview_every for request in server.engine.requests] == [0, 0]


async def test_coroutines_are_awaited_as_callbacks(server: RunningImageServer) -> None:
    seen: list[int] = []

    async def note(event: orrery.ImageProgress | orrery.ImagePreview) -> None:
        await asyncio.sleep(0)
        seen.append(event.step)

    async with orrery.AsyncClient(server.target) as client:
        await client.images.generate(
            PROMPT, num_steps=4, preview_every=2, on_progress=note, on_preview=note
        )
    assert sorted(seen) == [0, 1, 2, 2, 3, 4]


async def test_an_error_of_a_callback_is_raised_and_ends_the_call(
    make_either: MakeEither,
) -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.01))

    def refuse(progress: orrery.ImageProgress) -> None:
        raise ZeroDivisionError(progress.step)

    async with image_server(engine) as server:
        client = make_either(server.target)
        with pytest.raises(ZeroDivisionError):
            await client.call("images.generate", PROMPT, num_steps=100, on_progress=refuse)
        await nothing_is_held(engine)


async def test_ranked_pictures_come_best_first_with_their_scores(client: Either) -> None:
    made = await client.call(
        "images.generate", PROMPT, n=4, num_steps=2, seed=5, rank_by_similarity=True, top_n=3
    )
    scores = [each.similarity for each in made.images]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert [each.seed for each in made.images] == [5 + each.image_index for each in made.images]


async def test_pictures_that_are_not_ranked_come_by_their_index(make_either: MakeEither) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        for index in (2, 0, 1):
            yield pb.ImageServiceGenerateResponse(image=pb.GeneratedImage(image_index=index))
        yield pb.ImageServiceGenerateResponse(done=pb.ImagesDone(prompt_tokens=4))

    async with scripted(script) as target:
        made = await make_either(target).call("images.generate", PROMPT)
    assert [each.image_index for each in made.images] == [0, 1, 2]


async def test_model_tells_limits_and_defaults(client: Either) -> None:
    model = await client.call("images.model")
    assert model.model == MODEL_NAME
    assert model.aliases == ("orrery-diffusion",)
    assert (model.size_multiple, model.default_width) == (8, 64)
    assert set(model.schedulers) == {"ddim", "euler", "euler_ancestral", "dpm_solver_pp_2m"}
    assert model.default_scheduler in model.schedulers
    assert (model.default_strength, model.default_karras_sigmas) == (pytest.approx(0.8), False)
    assert model.default_preview_every_num_steps == 5
    assert model.can_rank


async def test_load_counts_what_was_made(client: Either) -> None:
    await client.call("images.generate", PROMPT, n=2, num_steps=3)
    load = await client.call("images.load")
    assert (load.num_images_done, load.num_steps_done) == (2, 6)
    assert load.num_running_images == 0
    assert load.max_running_images == 4


# --- editing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bytes", "path", "text path", "open file"])
async def test_edit_takes_a_picture_in_every_form(
    client: Either, server: RunningImageServer, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(png_of("green"))
    with path.open("rb") as file:
        image = {
            "bytes": path.read_bytes(),
            "path": path,
            "text path": str(path),
            "open file": file,
        }[form]
        made = await client.call("images.edit", PROMPT, image, strength=0.5, num_steps=10)
    assert made.image.recipe.strength == 0.5
    source = server.engine.requests[0].source
    assert tuple(source.pixels[0, 0]) == (0, 128, 0)
    assert source.strength == 0.5


async def test_edit_keeps_what_the_mask_keeps(client: Either, tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    made = await client.call(
        "images.edit", PROMPT, png_of("green"), mask=tmp_path / "mask.png", num_steps=4
    )
    assert pixels(made.image.png).getpixel((60, 60)) == (0, 128, 0)
    assert pixels(made.image.png).getpixel((3, 3)) != (0, 128, 0)


async def test_edit_streams_as_generation_does(client: Either) -> None:
    events = await client.all(
        "images.edit_stream", PROMPT, png_of("green"), strength=0.5, num_steps=8
    )
    assert isinstance(events[-1], orrery.ImagesDone)
    assert [e.num_steps for e in events if isinstance(e, orrery.ImageProgress)] == [4] * 5


async def test_edit_of_a_file_that_is_not_there_is_refused_unsent(
    client: Either, server: RunningImageServer, tmp_path: Path
) -> None:
    with pytest.raises(orrery.InvalidRequestError, match=r"absent\.png: cannot be read") as caught:
        await client.call("images.edit", PROMPT, tmp_path / "absent.png")
    assert caught.value.field == "image"
    assert server.engine.requests == []


@pytest.mark.parametrize("image", [3, None, io.StringIO("text")])
async def test_edit_of_what_is_no_picture_is_a_type_error(client: Either, image: Any) -> None:
    with pytest.raises(TypeError, match="image"):
        await client.call("images.edit", PROMPT, image)


async def test_a_closed_file_is_refused_by_name(client: Either) -> None:
    file = io.BytesIO(b"x")
    file.close()
    with pytest.raises(orrery.InvalidRequestError, match="mask: cannot be read"):
        await client.call("images.edit", PROMPT, png_of("green"), mask=file)


async def test_the_service_checks_pictures_and_names_the_field(client: Either) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("images.edit", PROMPT, b"not a picture")
    assert caught.value.field == "image"
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("images.edit", PROMPT, png_of("red"), mask=png_of("white", (32, 32)))
    assert caught.value.field == "mask"


# --- errors and endings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 10_000}, "num_steps"),
        ({"width": 63}, "width"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"n": 1000}, "n"),
    ],
)
async def test_bad_arguments_are_refused_by_the_service_by_name(
    client: Either, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("images.generate", PROMPT, **options)
    assert caught.value.field == f"parameters.{field}"


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"colour": 1}, TypeError, "colour"),
        ({"width": "wide"}, TypeError, "width"),
        ({"seed": -1}, orrery.InvalidRequestError, "seed"),
        ({"scheduler": "pndm"}, orrery.InvalidRequestError, "scheduler"),
        ({"preview_kind": "small"}, orrery.InvalidRequestError, "preview_kind"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_the_stream_begins(
    options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    with orrery.Client("127.0.0.1:1") as client:
        with pytest.raises(kind, match=named):
            client.images.stream(PROMPT, **options)
        with pytest.raises(kind, match=named):
            client.images.edit_stream(PROMPT, b"", **options)


async def test_leaving_a_stream_early_frees_what_it_held(make_either: MakeEither) -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.01))
    async with image_server(engine) as server:
        client = make_either(server.target)
        stream = client.client.images.stream(PROMPT, n=4, num_steps=100)
        if isinstance(stream, orrery.ImageStream):
            assert await asyncio.to_thread(next, stream) is not None
            stream.close()
            with pytest.raises(orrery.CancelledError):
                next(stream)
        else:
            assert await anext(stream) is not None
            await stream.aclose()
            with pytest.raises(orrery.CancelledError):
                await anext(stream)
        await nothing_is_held(engine)
        assert engine.load().num_images_done == 0


async def test_deadline_says_in_which_stage_the_time_went(make_either: MakeEither) -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.05))
    async with image_server(engine) as server:
        client = make_either(server.target)
        with pytest.raises(orrery.DeadlineExceededError):
            await client.call("images.generate", PROMPT, num_steps=100, timeout_s=0.3)
        await nothing_is_held(engine)


async def test_a_failed_picture_is_an_internal_error(
    client: Either, server: RunningImageServer
) -> None:
    server.engine.fails_on = "circle"
    with pytest.raises(orrery.InternalError, match="failed on this picture"):
        await client.call("images.generate", PROMPT)


async def test_a_call_is_repeated_before_its_first_event_and_not_after(
    make_either: MakeEither,
) -> None:
    attempts: list[dict[str, str]] = []

    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        attempts.append(dict(context.invocation_metadata()))
        if len(attempts) == 1:
            fail(context, served.Overloaded("full", retry_after_s=0.01))
            return
        yield pb.ImageServiceGenerateResponse(progress=pb.ImageProgress(num_steps=9))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    async with scripted(script) as target:
        with pytest.raises(orrery.ConnectionLostError):
            await make_either(target).call("images.generate", PROMPT)
    assert len(attempts) == 2
    assert len({attempt["x-request-id"] for attempt in attempts}) == 1
    assert attempts[0]["application"] == "diffusion"


async def test_a_stream_without_its_end_is_a_lost_connection(make_either: MakeEither) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.ImageServiceGenerateResponse(image=pb.GeneratedImage(png=b"x"))

    async with scripted(script) as target:
        with pytest.raises(orrery.ConnectionLostError, match="before the answer was complete"):
            await make_either(target).call("images.generate", PROMPT)


async def test_an_event_that_is_newer_than_the_client_is_passed_over(
    make_either: MakeEither,
) -> None:
    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.ImageServiceGenerateResponse(model="m")
        yield pb.ImageServiceGenerateResponse(done=pb.ImagesDone())

    async with scripted(script) as target:
        events = await make_either(target).all("images.stream", PROMPT)
    assert [type(event) for event in events] == [orrery.ImagesDone]


async def test_the_application_can_be_chosen(make_either: MakeEither) -> None:
    seen: list[str | None] = []

    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        seen.append(dict(context.invocation_metadata()).get("application"))
        yield pb.ImageServiceGenerateResponse(done=pb.ImagesDone())

    async with scripted(script) as target:
        await make_either(target).call("images.generate", PROMPT, application="sd-eu")
        named = make_either(target, services=orrery.ServiceNames(image="sd-us"))
        await named.call("images.generate", PROMPT)
        plain = make_either(target, services=orrery.ServiceNames(image=""))
        await plain.call("images.generate", PROMPT)
    assert seen == ["sd-eu", "sd-us", None]


async def test_a_server_without_pictures_is_said_to_have_none(make_either: MakeEither) -> None:
    bare = grpc.aio.server()
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    try:
        with pytest.raises(orrery.ServiceNotFoundError, match="diffusion"):
            await make_either(f"127.0.0.1:{port}").call("images.generate", PROMPT)
    finally:
        await bare.stop(grace=None)


# --- helpers ----------------------------------------------------------------------------------


async def nothing_is_held(engine: ScriptedEngine) -> None:
    async with asyncio.timeout(10):
        while engine.holds:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def scripted(script: Callable[[Any, Any], AsyncIterator[Any]]) -> AsyncIterator[str]:
    """A server whose `Generate` is `script`; yields its target."""

    class Servicer(image_pb2_grpc.ImageServiceServicer):
        async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
            async for message in script(request, context):
                yield message

    server = grpc.aio.server()
    image_pb2_grpc.add_ImageServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)
