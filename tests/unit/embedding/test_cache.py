"""The vectors in Redis: found again, never in the way, back by themselves."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from services.embedding.cache import EmbeddingCache, cache_prefix
from services.embedding.config import CacheConfig
from services.runtime import store
from tests.fakes.redis_server import RedisServer, redis_server

PREFIX = cache_prefix("0123456789abcdef" * 4, "float32", normalized=True)
DIGESTS = [bytes([number]) * 16 for number in range(5)]
VECTORS = list(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32))


class Observed:
    def __init__(self) -> None:
        self.hits = self.misses = self.failures = self.dropped = 0
        self.availability: list[bool] = []

    def cache_looked_up(self, num_hits: int, num_misses: int) -> None:
        self.hits += num_hits
        self.misses += num_misses

    def cache_available(self, available: bool) -> None:
        self.availability.append(available)

    def cache_failed(self) -> None:
        self.failures += 1

    def cache_writes_dropped(self, num_vectors: int) -> None:
        self.dropped += num_vectors


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), appendonly=False) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.flush()


@asynccontextmanager
async def cache(
    url: str,
    observed: Observed | None = None,
    dimensions: int = 8,
    prefix: bytes = PREFIX,
    **settings: float,
) -> AsyncIterator[EmbeddingCache]:
    config = CacheConfig(**{"timeout_s": 2.0, **settings})
    made = EmbeddingCache(store.connect(url), prefix, dimensions, config, observed or Observed())
    try:
        yield made
    finally:
        await made.close()


async def test_what_was_put_is_found_bit_for_bit_and_the_rest_is_not(server: RedisServer) -> None:
    observed = Observed()
    async with cache(server.url, observed) as first:
        assert await first.get(DIGESTS) == [None] * 5
        first.put(DIGESTS[:3], VECTORS[:3])
        await first.flush()
    async with cache(server.url, observed) as second:  # another replica
        found = await second.get(DIGESTS)
    for vector, expected in zip(found[:3], VECTORS[:3], strict=True):
        assert vector is not None
        np.testing.assert_array_equal(vector, expected)
    assert found[3:] == [None, None]
    assert (observed.hits, observed.misses, observed.failures) == (3, 7, 0)


async def test_vectors_of_other_weights_precision_or_length_are_not_found(
    server: RedisServer,
) -> None:
    async with cache(server.url) as made:
        made.put(DIGESTS, VECTORS)
        await made.flush()
    for prefix in (
        cache_prefix("f" * 64, "float32", normalized=True),
        cache_prefix("0123456789abcdef", "bfloat16", normalized=True),
        cache_prefix("0123456789abcdef", "float32", normalized=False),
    ):
        async with cache(server.url, prefix=prefix) as other:
            assert await other.get(DIGESTS) == [None] * 5


async def test_a_value_of_another_length_is_a_miss(server: RedisServer) -> None:
    async with cache(server.url) as made:
        made.put(DIGESTS, VECTORS)
        await made.flush()
    async with cache(server.url, dimensions=9) as other:
        assert await other.get(DIGESTS) == [None] * 5


async def test_entries_end_by_themselves(server: RedisServer) -> None:
    async with cache(server.url, ttl_s=1000) as made:
        made.put(DIGESTS[:1], VECTORS[:1])
        await made.flush()
    redis = store.connect(server.url)
    assert 0 < await redis.ttl(PREFIX + DIGESTS[0]) <= 1000
    await redis.aclose()


async def test_many_lookups_at_once_are_no_outage(server: RedisServer) -> None:
    observed = Observed()
    async with cache(server.url, observed, timeout_s=20) as made:
        made.put(DIGESTS, VECTORS)
        await made.flush()
        found = await asyncio.gather(*(made.get(DIGESTS) for _ in range(300)))
    assert all(vector is not None for vectors in found for vector in vectors)
    assert observed.failures == 0


async def test_more_writes_than_may_wait_are_dropped_and_counted(server: RedisServer) -> None:
    observed = Observed()
    async with cache(server.url, observed, max_waiting_writes=2) as made:
        made.put(DIGESTS, VECTORS)
        await made.flush()
        found = await made.get(DIGESTS)
    assert [vector is not None for vector in found] == [True, True, False, False, False]
    assert observed.dropped == 3


async def test_an_outage_is_logged_once_and_the_cache_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    observed = Observed()
    caplog.set_level(logging.INFO, logger="orrery.embedding")
    with redis_server(tmp_path, appendonly=False) as own:
        async with cache(own.url, observed) as made:
            made.put(DIGESTS, VECTORS)
            await made.flush()
            own.kill()
            for _ in range(20):
                assert await made.get(DIGESTS) == [None] * 5
                made.put(DIGESTS, VECTORS)
            assert not made.available
            own.restart()
            while not made.available:  # noqa: ASYNC110 - that is what is tested
                await asyncio.sleep(0.05)
            made.put(DIGESTS, VECTORS)
            await made.flush()
            assert None not in [None if v is None else 0 for v in await made.get(DIGESTS)]
    messages = [record.message for record in caplog.records if "cache" in record.message]
    assert messages == ["cache_lost", "cache_back"]
    assert observed.availability == [True, False, True]
    assert observed.failures >= 1


async def test_a_store_that_does_not_answer_is_not_waited_for() -> None:
    observed = Observed()
    with socket.socket() as silent:  # accepts, says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        async with cache(url, observed, timeout_s=0.05) as made:
            start = time.monotonic()
            assert await made.get(DIGESTS) == [None] * 5
            assert await made.get(DIGESTS) == [None] * 5
            assert time.monotonic() - start < 2.0  # far below the connection's own limits
            assert not made.available
    assert observed.failures == 1
