"""What becomes of pictures whose client leaves, whose time is up, whose service fails."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from orrery.v1 import image_pb2 as pb
from services.gateway import pictures
from services.gateway.config import GatewayConfig
from services.runtime.errors import DeadlineExceeded, DependencyDown, Overloaded
from services.runtime.pictures import decode_transparency
from tests.fakes.gateway_server import RunningGateway
from tests.fakes.image_gateway import image_gateway
from tests.fakes.scripted_images import ScriptedEngine, ScriptedSettings
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.drawn import half_transparent, png
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

URL = "/v1/images/generations"
EDITS = "/v1/images/edits"
CONFIG = GatewayConfig(applications=("toy",), image_applications=("diffusion",))
INFO = pb.GetImageModelResponse(
    model="tiny",
    default_num_steps=10,
    default_strength=0.7,
    max_image_bytes=1 << 20,
    max_image_pixels=1 << 20,
)
PICTURE = pb.GeneratedImage(png=png(), width=64, height=64, recipe=pb.ImageRecipe(scheduler=1))


def scripted(*answers: Any) -> ScriptedUpstream:
    return ScriptedUpstream({"GetImageModel": INFO, "Generate": list(answers)})


def answer(**event: Any) -> pb.ImageServiceGenerateResponse:
    return pb.ImageServiceGenerateResponse(model="tiny", **event)


def progress(step: int) -> pb.ImageServiceGenerateResponse:
    return answer(progress=pb.ImageProgress(step=step, num_steps=10))


def eventually(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not condition():
        time.sleep(0.01)
    return condition()


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    """One that takes a minute for a picture, and has one place."""
    return ScriptedEngine(ScriptedSettings(step_s=0.5, max_running=1, max_waiting=4))


@pytest.fixture(scope="module")
def slow_gateway(engine: ScriptedEngine) -> Iterator[RunningGateway]:
    with image_gateway(engine) as gateway:
        yield gateway


def send(gateway: RunningGateway, **body: Any) -> socket.socket:
    """A request over a socket of its own, sent and not yet answered."""
    data = json.dumps({"prompt": "a lamp", "steps": 120, **body}).encode()
    head = (
        f"POST {URL} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("streamed", [True, False])
def test_client_that_leaves_takes_its_pictures_with_it(
    slow_gateway: RunningGateway, engine: ScriptedEngine, streamed: bool
) -> None:
    num_asked = len(engine.requests)
    connection = send(slow_gateway, n=3, stream=streamed)
    assert eventually(lambda: len(engine.requests) == num_asked + 3)
    assert eventually(lambda: engine.load().num_running == 1)
    assert engine.load().num_waiting == 2
    connection.close()
    assert eventually(lambda: engine.holds == 0)
    assert engine.load().num_images_done == 0


def test_full_queue_says_when_to_come_back(
    slow_gateway: RunningGateway, engine: ScriptedEngine
) -> None:
    connection = send(slow_gateway, n=5)
    assert eventually(lambda: engine.holds == 5)
    for streamed in (True, False):
        body = {"prompt": "a lamp", "n": 5, "stream": streamed}
        response = httpx.post(slow_gateway.url + URL, json=body)
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "server_overloaded"
        assert int(response.headers["retry-after"]) >= 1
    connection.close()
    assert eventually(lambda: engine.holds == 0)


@pytest.mark.parametrize("streamed", [True, False])
def test_time_that_is_up_in_line_is_a_504(
    slow_gateway: RunningGateway, engine: ScriptedEngine, streamed: bool
) -> None:
    connection = send(slow_gateway)
    assert eventually(lambda: engine.load().num_running == 1)
    body = {"prompt": "a lamp", "stream": streamed}
    response = httpx.post(slow_gateway.url + URL, json=body, headers={"x-timeout-ms": "300"})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    connection.close()
    assert eventually(lambda: engine.holds == 0)


async def test_failure_after_the_first_step_is_an_event_and_the_end(
    open_scripted: OpenScripted,
) -> None:
    upstream = scripted(progress(0), progress(1), DeadlineExceeded("too late", stage="denoise"))
    async with open_scripted(upstream, CONFIG) as client:
        streamed = await client.post(URL, json={"prompt": "x", "stream": True})
        whole = await client.post(URL, json={"prompt": "x"})
    assert streamed.status_code == 200
    name, data = streamed.text.removesuffix("\n\n").split("\n", 1)
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))["error"]
    assert error["code"] == "deadline_exceeded"
    assert "denoise" in error["message"]
    assert whole.status_code == 504
    assert upstream.num_open_streams == 0


@pytest.mark.parametrize("begun", [(), (progress(0),)])
async def test_failure_before_the_first_step_has_a_status_of_its_own(
    open_scripted: OpenScripted, begun: tuple[Any, ...]
) -> None:
    upstream = scripted(*begun, Overloaded("full", retry_after_s=3.0))
    async with open_scripted(upstream, CONFIG) as client:
        for streamed in (True, False):
            response = await client.post(URL, json={"prompt": "x", "stream": streamed})
            assert (response.status_code, response.headers["retry-after"]) == (429, "3")


async def test_stream_that_ends_before_all_is_done_is_no_answer(
    open_scripted: OpenScripted,
) -> None:
    upstream = scripted(progress(1), answer(image=PICTURE))
    async with open_scripted(upstream, CONFIG) as client:
        whole = await client.post(URL, json={"prompt": "x"})
        streamed = await client.post(URL, json={"prompt": "x", "stream": True})
    assert whole.status_code == 503
    assert "[DONE]" not in streamed.text
    assert "completed" not in streamed.text
    assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == "dependency_down"


@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving_closes_the_call(open_scripted: OpenScripted, streamed: bool) -> None:
    asked = asyncio.Event()

    def never(_: pb.ImageServiceGenerateRequest) -> Awaitable[pb.ImageServiceGenerateResponse]:
        asked.set()
        return asyncio.get_running_loop().create_future()

    upstream = scripted(progress(1), never)
    async with open_scripted(upstream, CONFIG) as client:
        body = {"prompt": "x", "stream": streamed}
        call = asyncio.create_task(client.post(URL, json=body))
        await asyncio.wait_for(asked.wait(), 10)
        assert upstream.num_open_streams == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.wait_for(upstream.streams_closed.wait(), 10)


async def test_large_pictures_are_whole(open_scripted: OpenScripted) -> None:
    """Beside the event loop as on it."""
    data = png()[:24] + os.urandom(300_000)
    image = pb.GeneratedImage(png=data, width=9, height=9, recipe=pb.ImageRecipe(scheduler=2))
    preview = answer(preview=pb.ImagePreview(png=data, step=1))
    upstream = scripted(preview, answer(image=image), answer(done=pb.ImagesDone(prompt_tokens=3)))
    async with open_scripted(upstream, CONFIG) as client:
        whole = (await client.post(URL, json={"prompt": "x"})).json()
        body = {"prompt": "x", "stream": True, "partial_images": 1}
        events = (await client.post(URL, json=body)).text.split("\n\n")
    assert b64decode(whole["data"][0]["b64_json"]) == data
    for block in events[:2]:
        assert b64decode(json.loads(block.split("data: ")[1])["b64_json"]) == data
    assert upstream.requests("Generate")[1].parameters.previews.every_num_steps == 5


async def test_partial_pictures_of_an_edit_are_counted_by_the_models_own_strength(
    open_scripted: OpenScripted,
) -> None:
    """Seven of ten steps: 0.7 as it was configured, and not as 32 bits have it."""
    end = answer(done=pb.ImagesDone())
    upstream = ScriptedUpstream({"GetImageModel": INFO, "Edit": [answer(image=PICTURE), end]})
    form = {"prompt": "x", "stream": "true", "partial_images": "2"}
    async with open_scripted(upstream, CONFIG) as client:
        for strength in ({}, {"strength": "0.2"}):
            await client.post(EDITS, files={"image": png()}, data=form | strength)
    by_default, given = upstream.requests("Edit")
    assert not by_default.HasField("strength")
    assert by_default.parameters.previews.every_num_steps == 3
    assert given.parameters.previews.every_num_steps == 1


async def test_few_masks_are_open_at_once_however_many_callers_send_one(
    open_scripted: OpenScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = threading.Lock()
    num_open, most = 0, 0

    def decode(*args: Any) -> Any:
        nonlocal num_open, most
        with counting:
            num_open += 1
            most = max(most, num_open)
        time.sleep(0.05)  # so that all that may be open at once are
        with counting:
            num_open -= 1
        return decode_transparency(*args)

    monkeypatch.setattr(pictures, "decode_transparency", decode)
    end = answer(done=pb.ImagesDone())
    upstream = ScriptedUpstream({"GetImageModel": INFO, "Edit": [answer(image=PICTURE), end]})
    files = {"image": png(), "mask": half_transparent()}
    async with open_scripted(upstream, CONFIG) as client:
        sent = (client.post(EDITS, files=files, data={"prompt": "x"}) for _ in range(6))
        assert [response.status_code for response in await asyncio.gather(*sent)] == [200] * 6
    assert most == 2


async def test_gateway_without_an_image_service_says_so(open_scripted: OpenScripted) -> None:
    config = GatewayConfig(applications=("toy",))
    async with open_scripted(ScriptedUpstream({}), config) as client:
        for response in (
            await client.post(URL, json={"prompt": "x"}),
            await client.post(URL, json={"prompt": "x", "model": "m", "stream": True}),
            await client.post("/v1/images/edits", files={"image": png()}, data={"prompt": "x"}),
        ):
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"


async def test_silent_image_service_is_503(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream({"GetImageModel": DependencyDown("gone")})
    async with open_scripted(upstream, CONFIG) as client:
        for body in ({"prompt": "x"}, {"prompt": "x", "model": "tiny"}):
            assert (await client.post(URL, json=body)).status_code == 503
