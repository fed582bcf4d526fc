"""A redis-server, and the whole retrieval service over it, embedding by hashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from services.retrieval.config import RetrievalConfig
from tests.contract.retrieval_served import OPTIONS, ServedRetrieval
from tests.fakes.hash_embedding import HashEmbeddingServicer
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.retrieval_server import RunningRetrieval, retrieval_server


@dataclass(frozen=True, slots=True)
class Site:
    """A server, a client of it, and what is behind it."""

    server: RunningRetrieval
    client: ServedRetrieval
    embedding: HashEmbeddingServicer


@asynccontextmanager
async def site(
    redis_url: str, data_dir: Path, config: RetrievalConfig | None = None
) -> AsyncIterator[Site]:
    """A replica with a client."""
    embedding = HashEmbeddingServicer()
    async with (
        retrieval_server(redis_url, data_dir, config, embedding=embedding) as server,
        grpc.aio.insecure_channel(server.target, options=OPTIONS) as channel,
    ):
        yield Site(server, ServedRetrieval(channel, ()), embedding)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; fails when it never does."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def alone(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    """The only replica."""
    async with site(redis.url, tmp_path / "data") as made:
        yield made
