"""Vectors by the digest of what the model would read: from the cache where it has them, from the
batches of the model where not.

The same for texts and for pictures. Knows neither, nor gRPC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.embedding.batcher import Batcher, Job
from services.embedding.cache import EmbeddingCache, Vector

__all__ = ["Cost", "Embedded", "Found", "VectorSource"]

PayloadT = TypeVar("PayloadT")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One vector for each digest, whether it was cached, and what the rest took."""

    vectors: list[Vector]
    cached: list[bool]
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took: tokens that were read, those of cached vectors among them, and seconds."""

    num_tokens: int
    num_cached_tokens: int
    queue_s: float
    compute_s: float

    def beside(self, other: Cost) -> Cost:
        """Of two pieces of work done at the same time."""
        return Cost(
            num_tokens=self.num_tokens + other.num_tokens,
            num_cached_tokens=self.num_cached_tokens + other.num_cached_tokens,
            queue_s=max(self.queue_s, other.queue_s),
            compute_s=max(self.compute_s, other.compute_s),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One call's vectors. The lists have an entry for each input."""

    vectors: list[Vector]
    num_tokens: list[int]  # that the model read; zero of a picture
    truncated: list[bool]
    cached: list[bool]
    cost: Cost


class VectorSource(Generic[PayloadT]):
    """Used from one event loop."""

    def __init__(self, batcher: Batcher[PayloadT, Vector], cache: EmbeddingCache | None) -> None:
        self._batcher = batcher
        self._cache = cache

    @property
    def has_cache(self) -> bool:
        """Whether a vector may be known already."""
        return self._cache is not None and self._cache.available

    @property
    def num_waiting(self) -> int:
        """Distinct inputs that wait for a batch."""
        return self._batcher.num_waiting

    @property
    def num_running(self) -> int:
        """Distinct inputs in the batch under way."""
        return self._batcher.num_running

    @property
    def failure(self) -> str | None:
        """Why no batch is to be expected any more; None = they go on."""
        return self._batcher.failure

    async def close(self) -> None:
        """Refuses what waits, lets the batch under way finish."""
        await self._batcher.close()

    async def get(
        self,
        digests: Sequence[bytes],
        prepare: Callable[[list[int]], Awaitable[list[Job[PayloadT]]]],
        deadline_s: float,
    ) -> Found:
        """All vectors or an error. `prepare` makes the jobs of the positions that are not cached.

        Raises as `Batcher.run`, and what `prepare` raises.
        """
        found: list[Vector | None] = [None] * len(digests)
        if self._cache is not None:
            found = await self._cache.get(digests)
        cached = [vector is not None for vector in found]
        missing = [position for position, is_cached in enumerate(cached) if not is_cached]
        jobs = await prepare(missing) if missing else []
        answers = await self._batcher.run(jobs, deadline_s)
        if self._cache is not None and missing:
            self._cache.put([digests[position] for position in missing], answers.results)
        for position, vector in zip(missing, answers.results, strict=True):
            found[position] = vector
        vectors = [vector for vector in found if vector is not None]
        return Found(vectors, cached, answers.queue_s, answers.compute_s)
