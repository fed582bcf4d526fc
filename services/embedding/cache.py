"""Vectors kept in Redis, by what the model reads and with which weights it reads it.

    orrery:embedding:<weights, 16 hex>:<dtype>:<unit|raw>:<digest of the token ids>
        ->  float32, little-endian

The token ids are those the model reads: prompt, special tokens and cut included. So a text embedded
for another purpose is another entry where the model has prompts and the same one where it has none,
and one entry serves any number of `dimensions`.

The cache is never waited for long and never fails a request. When Redis is away that is logged
once, lookups are skipped, and a ping in the background finds out when it is back. Writes go through
one task with a bounded queue. Knows nothing of models, texts or gRPC.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.embedding.config import CacheConfig

__all__ = ["CacheObserver", "EmbeddingCache", "cache_prefix"]

Vector = npt.NDArray[np.float32]

_PREFIX = "orrery:embedding"
_DTYPE = np.dtype("<f4")
_MAX_LOOKUPS = 16  # at a time, each on a connection of its own
_WRITE_BATCH = 256
_PING_INTERVAL_S = 1.0
_AWAY = (RedisError, OSError, TimeoutError)

_LOG = logging.getLogger("orrery.embedding")


class CacheObserver(Protocol):
    """Is told what the cache did; called on the event loop."""

    def cache_looked_up(self, num_hits: int, num_misses: int) -> None: ...

    def cache_available(self, available: bool) -> None: ...

    def cache_failed(self) -> None: ...

    def cache_writes_dropped(self, num_vectors: int) -> None: ...


def cache_prefix(weight_hash: str, dtype: str, *, normalized: bool) -> bytes:
    """What the keys of one model's vectors begin with: what else decides them beside the input."""
    length = "unit" if normalized else "raw"  # a setting can ask for the first
    return f"{_PREFIX}:{weight_hash[:16]}:{dtype}:{length}:".encode()


@dataclass(frozen=True, slots=True)
class _Write:
    key: bytes
    value: bytes


class EmbeddingCache:
    """Vectors of `dimensions` by digest. Used from one event loop; made inside it."""

    def __init__(
        self,
        redis: Redis,
        prefix: bytes,
        dimensions: int,
        config: CacheConfig,
        observer: CacheObserver,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._dimensions = dimensions
        self._config = config
        self._observer = observer
        self._available = True
        self._lookups = asyncio.Semaphore(_MAX_LOOKUPS)
        self._writes: deque[_Write] = deque()
        self._background: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None
        observer.cache_available(True)

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._available

    async def get(self, digests: Sequence[bytes]) -> list[Vector | None]:
        """Each digest's vector, or None. All None when Redis is away."""
        if not self._available or not digests:
            return [None] * len(digests)
        keys = [self._prefix + digest for digest in digests]
        try:
            async with asyncio.timeout(self._config.timeout_s), self._lookups:
                values = await self._redis.mget(keys)
        except _AWAY as error:
            self._lost(error)
            return [None] * len(digests)
        vectors = [self._vector(value) for value in values]
        num_hits = sum(vector is not None for vector in vectors)
        self._observer.cache_looked_up(num_hits, len(vectors) - num_hits)
        return vectors

    def put(self, digests: Sequence[bytes], vectors: Sequence[Vector]) -> None:
        """Keeps vectors, some time after it returns; drops what is too much at once."""
        if not self._available:
            return
        room = self._config.max_waiting_writes - len(self._writes)
        for digest, vector in zip(digests[:room], vectors[:room], strict=True):
            value = vector.astype(_DTYPE, copy=False).tobytes()
            self._writes.append(_Write(self._prefix + digest, value))
        if len(digests) > room:
            self._observer.cache_writes_dropped(len(digests) - max(room, 0))
        if self._writes and self._writer is None:
            self._writer = self._run(self._write())

    async def flush(self) -> None:
        """Returns when everything put so far is written or given up."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def close(self) -> None:
        """Writes what still waits, if Redis is there, and closes the connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.timeout_s):
                await self.flush()
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await self._redis.aclose()

    def _vector(self, value: bytes | str | None) -> Vector | None:
        """A stored value; one of another length is no vector of this model."""
        if not isinstance(value, bytes) or len(value) != self._dimensions * _DTYPE.itemsize:
            return None
        return np.frombuffer(value, dtype=_DTYPE).astype(np.float32, copy=False)

    async def _write(self) -> None:
        try:
            while self._writes:
                batch = [
                    self._writes.popleft() for _ in range(min(_WRITE_BATCH, len(self._writes)))
                ]
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for write in batch:
                        pipeline.set(write.key, write.value, ex=self._config.ttl_s)
                    await pipeline.execute()
        except _AWAY as error:
            self._lost(error)
        finally:
            self._writer = None

    def _lost(self, error: Exception) -> None:
        self._observer.cache_failed()
        if not self._available:
            return
        self._available = False
        self._writes.clear()
        self._observer.cache_available(False)
        _LOG.warning("cache_lost", extra={"error": type(error).__name__})
        self._run(self._wait_until_back())

    async def _wait_until_back(self) -> None:
        while not self._available:
            await asyncio.sleep(_PING_INTERVAL_S)
            with suppress(*_AWAY):
                await self._redis.ping()
                self._available = True
        self._observer.cache_available(True)
        _LOG.info("cache_back")

    def _run(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
