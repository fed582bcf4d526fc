"""`orrery image`, `classify`, `search --image`, and the part of pictures in other commands."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from orrery.cli.image_progress import StepCount
from orrery.results import ImageProgress
from tests.fakes.image_server import MODEL_NAME, RunningImageServer, image_server
from tests.unit.client.command import Terminal, orrery
from tests.unit.client.fake_retrieval import PNG, FakePlatform

PROMPT = "a red circle left of a blue square"
RED = PNG + b"red"


@pytest_asyncio.fixture
async def images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[RunningImageServer]:
    """The image service alone, which the commands find; they run in an empty folder."""
    async with image_server() as running:
        monkeypatch.setenv("ORRERY_TARGET", running.target)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.fixture
def clip(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePlatform:
    """Services of CLIP and retrieval, which the commands find; they run beside two pictures."""
    monkeypatch.setenv("ORRERY_TARGET", platform.target)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    Path("red.png").write_bytes(RED)
    Path("blue.png").write_bytes(PNG + b"blue")
    return platform


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# --- orrery image -----------------------------------------------------------------------------


async def test_image_writes_the_picture_and_says_how_to_make_it_again(
    images: RunningImageServer, tmp_path: Path
) -> None:
    outcome = await orrery(
        *("image", PROMPT, "-o", "out.png", "--size", "64x32", "--steps", "4", "--guidance", "3"),
        *("--seed", "7", "--scheduler", "euler", "--negative", "text", "--set", "eta=null"),
        *("--set", "karras_sigmas=true"),
    )
    assert outcome.exit_code == 0
    assert outcome.stdout == "out.png  64x32  seed 7  4 steps of euler  guidance 3\n"
    assert outcome.stderr == ""
    assert size_of(tmp_path / "out.png") == (64, 32)
    request = images.engine.requests[0]
    assert (request.prompt, request.negative_prompt, request.seed) == (PROMPT, "text", 7)
    assert request.sampling.karras_sigmas


async def test_image_names_its_file_by_the_seed(images: RunningImageServer, tmp_path: Path) -> None:
    await orrery("image", "--seed", "5", "-n", "2", stdin=PROMPT)
    assert set(os.listdir(tmp_path)) == {"image-5.png", "image-6.png"}
    (tmp_path / "folder").mkdir()
    await orrery("image", PROMPT, "--seed", "9", "-o", "folder")
    assert os.listdir(tmp_path / "folder") == ["image-9.png"]
    assert images.engine.requests[0].prompt == PROMPT


async def test_image_writes_several_pictures_best_first_with_their_scores(
    images: RunningImageServer, tmp_path: Path
) -> None:
    outcome = await orrery("image", PROMPT, "-o", "a.b.png", "-n", "3", "--steps", "2", "--rank")
    lines = outcome.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a.b-1.png", "a.b-2.png", "a.b-3.png"]
    scores = [float(line.split()[-1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert len(os.listdir(tmp_path)) == 3


async def test_image_to_standard_output_is_the_picture_alone(
    images: RunningImageServer, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from orrery.cli.app import app

    arguments = ["image", PROMPT, "-o", "-", "--steps", "2"]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert image.size == (64, 64)
    assert os.listdir(tmp_path) == []
    for more in (["-n", "2"], ["--json"], ["--set", "n=3"]):
        refused = await orrery(*arguments, *more)
        assert refused.exit_code == 2
        assert "--output -" in refused.stderr
    best = await orrery(*arguments, "-n", "2", "--rank", "--set", "top_n=1")
    assert best.exit_code == 0


async def test_image_writes_previews_to_their_folder(
    images: RunningImageServer, tmp_path: Path
) -> None:
    outcome = await orrery(
        *("image", PROMPT, "-o", "out.png", "--steps", "6", "-n", "2"),
        *("--previews", "making/of", "--set", "preview_every=2"),
    )
    assert outcome.exit_code == 0
    names = sorted(os.listdir(tmp_path / "making/of"))
    assert names == ["0-0002.png", "0-0004.png", "1-0002.png", "1-0004.png"]
    assert size_of(tmp_path / "making/of/0-0002.png") == (64, 64)


async def test_image_edits_a_picture_with_a_mask(
    images: RunningImageServer, tmp_path: Path
) -> None:
    Image.new("RGB", (32, 32), "green").save("in.png")
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    mask.save("mask.png")
    outcome = await orrery(
        *("image", PROMPT, "--edit", "in.png", "--mask", "mask.png", "--strength", "0.5"),
        *("-o", "out.png", "--steps", "10"),
    )
    assert outcome.exit_code == 0
    assert "strength 0.5" in outcome.stdout
    with Image.open("out.png") as made:
        colours = made.convert("RGB").getcolors()
    assert colours is not None
    assert (16 * 32, (0, 128, 0)) in colours
    assert len(colours) == 2


async def test_image_as_json_tells_files_and_recipes(images: RunningImageServer) -> None:
    outcome = await orrery("image", PROMPT, "--seed", "3", "--steps", "2", "--json")
    told = json.loads(outcome.stdout)
    assert told["model"] == MODEL_NAME
    assert told["images"][0]["path"] == "image-3.png"
    assert told["images"][0]["recipe"]["num_steps"] == 2
    assert told["timing"]["total_ns"] > 0


async def test_image_tells_its_times(images: RunningImageServer) -> None:
    outcome = await orrery("image", PROMPT, "--steps", "2", "--stats")
    assert "prompt tokens; waited" in outcome.stderr
    assert "decoding" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mask", "m.png"], "--edit"),
        (["--strength", "0.5"], "--edit"),
        (["--size", "big"], "--size"),
        (["--size", "64x"], "--size"),
        (["--size", "9" * 5000], "--size"),
        (["-o", "nowhere/out.png"], "--output"),
        (["-o", "nowhere/"], "--output"),
        (["--set", "colour=1"], "colour"),
        (["--set", "width=1.5"], "width"),
        (["--set", "width=64", "--size", "64"], "twice"),
        (["--set", "preview_every=2"], "--previews"),
        (["--set", 'preview_kind="latent"', "--previews", "p"], "preview_kind"),
        (["--edit", "absent.png"], "absent.png"),
        (["--steps", "0"], "num_steps"),
        (["--steps", "10000"], "num_steps"),
        (["--size", "63"], "width"),
        (["--guidance", "nan"], "guidance_scale"),
        (["--set", "seed=-1"], "seed"),
    ],
)
async def test_image_refuses_what_cannot_be_by_name(
    images: RunningImageServer, arguments: list[str], told: str
) -> None:
    outcome = await orrery("image", PROMPT, *arguments)
    assert outcome.exit_code == 2
    assert told in outcome.stderr
    assert images.engine.requests == []


async def test_image_says_that_its_file_cannot_be_written(
    images: RunningImageServer, tmp_path: Path
) -> None:
    long_name = "x" * 300 + ".png"
    outcome = await orrery("image", PROMPT, "--steps", "2", "-o", long_name)
    assert outcome.exit_code == 4
    assert "File name too long" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    (tmp_path / "file").write_text("")
    outcome = await orrery("image", PROMPT, "--previews", "file")
    assert outcome.exit_code == 2
    assert "--previews" in outcome.stderr


@pytest.mark.parametrize("output", [(), ("-o", "out.png"), ("-o", "folder"), ("-o", "old.png")])
async def test_image_is_not_made_where_it_cannot_be_written(
    images: RunningImageServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    output: tuple[str, ...],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.png").write_text("")
    # Whoever runs the tests may write anywhere.
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    outcome = await orrery("image", PROMPT, *output)
    assert outcome.exit_code == 2
    assert "--output" in outcome.stderr
    assert images.engine.requests == []


async def test_image_with_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "127.0.0.1:1")
    outcome = await orrery("image", PROMPT)
    assert outcome.exit_code == 3
    assert outcome.stderr.count("\n") == 1


async def test_image_shows_the_picture_and_a_bar_on_a_terminal(
    images: RunningImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("STY", raising=False)

    def run(*more: str) -> str:
        with Terminal("image", PROMPT, "-o", "out.png", "--steps", "3", *more) as terminal:
            assert terminal.wait() == 0
            return terminal.output

    shown = await asyncio.to_thread(run)
    assert shown.count("out.png") == 1
    assert "\x1b_Ga=T,f=100,q=2,c=32," in shown
    assert "\x1b_G" not in await asyncio.to_thread(run, "--no-show")


def test_steps_are_counted_over_all_pictures() -> None:
    count = StepCount()
    assert (count.stage, count.total) == ("waiting", 0)
    for index in (0, 1):
        count.add(ImageProgress(index, 0, 4))
    assert (count.stage, count.done, count.total) == ("waiting", 0, 8)
    count.add(ImageProgress(0, 3, 4))
    assert (count.stage, count.done, count.total) == ("steps", 3, 8)
    count.add(ImageProgress(0, 4, 4))
    count.add(ImageProgress(1, 4, 4))
    assert (count.stage, count.done) == ("decoding", 8)


# --- orrery classify, search, ingest ----------------------------------------------------------


async def test_classify_shows_each_pictures_labels(clip: FakePlatform) -> None:
    outcome = await orrery(
        *("classify", "red.png", "blue.png", "--labels", "twelve chars, a", "-l", "eleven char"),
        *("--template", "a picture of a {}", "--top", "2"),
    )
    assert outcome.exit_code == 0
    rows = [line.split("  ") for line in outcome.stdout.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[1] == ["red.png", "eleven char", "0.5000", "0.0000"]
    assert cells[2][0] == "twelve chars"
    assert cells[3][:2] == ["blue.png", "twelve chars"]
    request = clip.embedding.seen[0][1]
    assert list(request.labels) == ["twelve chars", "a", "eleven char"]
    assert (list(request.templates), request.top_n) == (["a picture of a {}"], 2)


async def test_classify_as_json_is_the_result(clip: FakePlatform) -> None:
    outcome = await orrery("classify", "red.png", "--labels", "a,b", "--json")
    told = json.loads(outcome.stdout)
    assert {score["label"] for score in told["results"][0]["scores"]} == {"a", "b"}


async def test_classify_of_a_file_that_is_not_there_is_one_line(clip: FakePlatform) -> None:
    outcome = await orrery("classify", "absent.png", "--labels", "a,b")
    assert outcome.exit_code == 2
    assert "absent.png" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


async def test_pictures_are_ingested_and_found_by_a_picture(clip: FakePlatform) -> None:
    made = await orrery("ingest", ".", "-c", "pictures", "--embedding", "clip")
    assert "pictures: 2 added" in made.stdout
    assert clip.retrieval.made["pictures"].config.embedding_application == "clip"
    found = await orrery("search", "--image", "red.png", "-c", "pictures")
    assert found.exit_code == 0
    lines = found.stdout.splitlines()
    assert lines[0].startswith("1. red.png  score 1.000  dense 1.000")
    assert lines[1] == "64x48 image/png"
    request = clip.retrieval.calls("SearchRequest")[0]
    assert (request.query.text, request.query.image.data) == ("", RED)
    await orrery("search", "red", "--image", "red.png", "-c", "pictures")
    assert clip.retrieval.calls("SearchRequest")[1].query.text == "red"


async def test_a_collection_of_pictures_can_be_created(clip: FakePlatform) -> None:
    await orrery("collections", "create", "pictures", "--embedding", "clip")
    assert clip.retrieval.made["pictures"].config.embedding_application == "clip"
    refused = await orrery("ingest", ".", "-c", "pictures", "--embedding", "mini")
    assert refused.exit_code == 2
    assert "clip" in refused.stderr


# --- orrery status and models -----------------------------------------------------------------


async def test_status_and_models_tell_of_the_image_service(images: RunningImageServer) -> None:
    await orrery("image", PROMPT, "--steps", "2")
    status = await orrery("status")
    assert status.exit_code == 0
    assert MODEL_NAME in status.stdout
    assert "0 of 4 places in use, 1 pictures in 2 steps so far" in status.stdout
    report = json.loads((await orrery("status", "--json")).stdout)
    assert report["services"][0]["load"]["num_images_done"] == 1
    models = await orrery("models")
    rows = [line.split()[:3] for line in models.stdout.splitlines()]
    assert [MODEL_NAME, "-", "diffusion"] in rows
    told = json.loads((await orrery("models", "--json")).stdout)
    assert (told[0]["name"], told[0]["application"]) == (MODEL_NAME, "")
    assert told[0]["size_multiple"] == 8


async def test_status_and_models_tell_of_the_embedding_services(
    clip: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clip.applications = ("clip", "retrieval")
    status = (await orrery("status")).stdout
    assert ["clip", "mini", "-", "ready"] in [line.split()[:4] for line in status.splitlines()]
    assert "25% of 4 inputs from the cache" in status
    models = (await orrery("models")).stdout.splitlines()
    assert models[1].split()[:5] == ["mini", "clip", "embedding", "-", "bfloat16"]
    assert max(map(len, models)) <= 80
