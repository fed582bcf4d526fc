"""Readiness follows the truth: what searches do not see is told, and they are answered still."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.retrieval.config import LogConfig, RetrievalConfig
from services.runtime.health import READINESS
from tests.contract.retrieval_served import ServedRetrieval, ids, text
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import Site, site

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status(client: ServedRetrieval) -> health_pb2.HealthCheckResponse.ServingStatus:
    stub = health_pb2_grpc.HealthStub(client.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest())).status


async def until_status(
    client: ServedRetrieval, expected: health_pb2.HealthCheckResponse.ServingStatus
) -> None:
    for _ in range(500):
        if await status(client) == expected:
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come about")


async def why_not_ready(client: ServedRetrieval) -> str:
    stub = health_pb2_grpc.HealthStub(client.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service=READINESS))
    assert refusal(caught.value).reason == "NOT_READY"
    return str(caught.value.details())


async def test_replica_behind_the_log_is_not_ready_until_it_has_caught_up(
    redis: RedisServer, tmp_path: Path
) -> None:
    config = RetrievalConfig(log=LogConfig(max_behind_s=0.2))
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(site(redis.url, tmp_path / "data", config))
        writer = await stack.enter_async_context(site(redis.url, tmp_path / "data"))
        name = await writer.client.collection()
        token = await writer.client.put(name, [text("a", "some words")])
        assert ids(await slow.client.search(name, token, text="some")) == ["a#0"]
        gate = threading.Event()
        stack.callback(gate.set)
        held = asyncio.create_task(slow.server.service._replica._applier.in_writer(gate.wait))
        later = await writer.client.put(name, [text("b", "some more")])
        await until_status(slow.client, NOT_SERVING)
        assert "behind the end of the log" in await why_not_ready(slow.client)
        assert ids(await slow.client.search(name, text="some")) == ["a#0"]  # answered all the same
        assert slow.server.service.failure is None  # another would have to read the same log
        assert await status(writer.client) == SERVING
        gate.set()
        await held
        await until_status(slow.client, SERVING)
        assert set(ids(await slow.client.search(name, later, text="some"))) == {"a#0", "b#0"}


async def test_long_silence_in_the_log_is_no_lag(redis: RedisServer, tmp_path: Path) -> None:
    config = RetrievalConfig(log=LogConfig(max_behind_s=1.0))
    async with site(redis.url, tmp_path / "data", config) as alone:
        name = await alone.client.collection()
        await asyncio.sleep(1.1)
        redis.kill()  # nothing is written while it is away, so nothing is missed
        await asyncio.sleep(1.1)
        assert await status(alone.client) == SERVING
        redis.restart()
        for number in range(5):
            await _put_when_it_is_back(alone, name, f"d{number}")
            assert await status(alone.client) == SERVING


async def test_log_that_was_wiped_is_told_and_searches_go_on(
    alone: Site, redis: RedisServer
) -> None:
    name = await alone.client.collection()
    token = await alone.client.put(name, [text("a", "some words")])
    assert ids(await alone.client.search(name, token, text="some")) == ["a#0"]
    redis.flush()
    await until_status(alone.client, NOT_SERVING)
    assert "cannot be followed: the store is empty" in await why_not_ready(alone.client)
    assert ids(await alone.client.search(name, text="some")) == ["a#0"]
    assert alone.server.service.failure is None


async def _put_when_it_is_back(alone: Site, name: str, document_id: str) -> None:
    for _ in range(500):
        if (await alone.client.load()).log_available:
            break
        await asyncio.sleep(0.02)
    await alone.client.put(name, [text(document_id, "words")])
