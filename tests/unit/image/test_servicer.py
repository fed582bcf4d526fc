"""The servicer over gRPC in the states that a running platform is seldom in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orrery.v1 import image_pb2 as pb
from orrery.v1.image_pb2_grpc import ImageServiceStub
from services.image.config import ImageConfig
from services.image.loop.async_engine import AsyncImageEngine
from services.image.model.diffusion_model import DiffusionModel
from services.runtime.errors import DependencyDown
from tests.contract.served import refusal
from tests.fakes.image_server import CONFIG, RunningImageServer, ScriptedRanker, image_server
from tests.fakes.random_diffusion import random_diffusion_folder
from tests.fakes.scripted_images import ScriptedEngine, ScriptedSettings

SERVING, NOT_SERVING = 1, 2


@asynccontextmanager
async def served(
    *args: Any, **options: Any
) -> AsyncIterator[tuple[RunningImageServer, grpc.aio.Channel]]:
    async with (
        image_server(*args, **options) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield server, channel


def wish(prompt: str = "a lamp", **parameters: Any) -> pb.ImageServiceGenerateRequest:
    return pb.ImageServiceGenerateRequest(
        prompt=prompt, parameters=pb.DiffusionParameters(**{"num_steps": 3, **parameters})
    )


async def generate(
    channel: grpc.aio.Channel, request: pb.ImageServiceGenerateRequest, **options: Any
) -> list[pb.ImageServiceGenerateResponse]:
    return [message async for message in ImageServiceStub(channel).Generate(request, **options)]


async def health(channel: grpc.aio.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest())).status
    return status


async def test_full_line_is_resource_exhausted_with_when_to_come_back() -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.01, max_running=1, max_waiting=1))
    async with served(engine) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(channel, wish(n=3))
        assert refusal(caught.value).reason == "OVERLOADED"
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert engine.requests == []


async def test_closing_lets_running_pictures_finish_and_takes_no_new_ones() -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.01))
    async with served(engine) as (server, channel):
        running = asyncio.create_task(generate(channel, wish(num_steps=20)))
        await engine.started.wait()
        closing = asyncio.create_task(server.servicer.close())
        await asyncio.sleep(0.02)
        assert await health(channel) == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(channel, wish())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await running)[-1].WhichOneof("event") == "done"
        await closing


async def test_closing_cuts_what_takes_too_long() -> None:
    engine = ScriptedEngine(ScriptedSettings(step_s=0.01))
    config = CONFIG.model_copy(update={"drain_timeout_s": 0.05})
    async with served(engine, config) as (server, channel):
        running = asyncio.create_task(generate(channel, wish(num_steps=150)))
        await engine.started.wait()
        await server.servicer.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running
        assert refusal(caught.value).reason == "NOT_READY"
        assert engine.holds == 0


async def test_engine_that_stopped_is_told_by_health() -> None:
    async with served() as (server, channel):
        assert await health(channel) == SERVING
        server.engine.failure = "the image engine has stopped"
        assert await health(channel) == NOT_SERVING


async def test_clip_that_fails_after_the_pictures_is_a_dependency_that_is_down() -> None:
    class FailingLate(ScriptedRanker):
        async def check(self, prompt: str, caller: Any) -> None:
            return None

    ranker = FailingLate()
    ranker.fails_with = DependencyDown("the service 'clip' does not answer")
    async with served(ranker=ranker) as (server, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(channel, wish(n=2, rank_by_similarity=True))
        assert refusal(caught.value).reason == "DEPENDENCY_DOWN"
        assert server.engine.holds == 0


async def test_key_is_asked_for_where_there_is_one() -> None:
    async with served(api_keys=("secret",)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(channel, wish())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer secret"),)
        assert await generate(channel, wish(), metadata=metadata)


async def test_aliases_mean_the_model_and_answers_name_it() -> None:
    async with served() as (_, channel):
        request = wish()
        request.model = CONFIG.aliases[0]
        assert {m.model for m in await generate(channel, request)} == {CONFIG.model_name}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_diffusion_folder(tmp_path_factory.mktemp("model") / "diffusion")


async def test_model_that_fails_on_everything_is_told_by_health(folder: Path) -> None:
    """Each call gets its own error; after a few of them the replica asks to be replaced."""
    model = DiffusionModel.load(folder)

    def broken(*_: Any) -> Any:
        raise RuntimeError("the device is lost")

    model.predict = broken  # type: ignore[method-assign]
    engine = AsyncImageEngine(model)
    config = ImageConfig(model_name="tiny", model_path="tiny", num_threads=1)
    try:
        async with served(engine, config) as (_, channel):
            assert await health(channel) == SERVING
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await generate(channel, wish(width=32, height=32))
                assert refusal(caught.value).reason == "INTERNAL"
                assert "device" not in (caught.value.details() or "")
            assert await health(channel) == NOT_SERVING
            assert engine.load().state_bytes == 0
    finally:
        await engine.close()
