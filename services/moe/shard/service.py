"""The work of a shard: computes in one thread, in the order of arrival, what is too much to be done
at once; loads experts in another.

A call that is given up, or whose time is up, while it waits costs nothing. Knows nothing of gRPC,
protobuf or Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.shard.expert_store import ExpertRows, ExpertStore
from services.moe.shard.metrics import ShardMetrics
from services.runtime.errors import DeadlineExceeded, Overloaded

__all__ = ["Computed", "ShardService"]

T = TypeVar("T")

# Up to so many, computing takes less time than handing it to the thread and back.
_INLINE_MULTIPLICATIONS = 1 << 23


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Rows as they came, and what they took."""

    rows: Tensor
    queue_s: float
    compute_s: float


class ShardService:
    """For one event loop. `close` ends its threads."""

    def __init__(self, store: ExpertStore, metrics: ShardMetrics, max_waiting: int) -> None:
        self._store = store
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="moe-shard-compute")
        self._moving = ThreadPoolExecutor(1, thread_name_prefix="moe-shard-load")
        self._num_calls = 0
        self._num_rows_done = 0

    @property
    def store(self) -> ExpertStore:
        return self._store

    @property
    def num_calls(self) -> int:
        """Under way and in line."""
        return self._num_calls

    @property
    def num_rows_done(self) -> int:
        return self._num_rows_done

    async def compute(self, work: ExpertRows, deadline_s: float) -> Computed:
        """`deadline_s` is on `time.monotonic`.

        Raises `ResourceNotFound` for an expert that is not held, `Overloaded`, `DeadlineExceeded`.
        """
        if self._num_calls > self._max_waiting:
            raise Overloaded(f"{self._max_waiting} calls wait already", retry_after_s=0.1)
        self._store.check_held(work)
        arrival_s = time.monotonic()

        def run() -> Computed:
            started_s = time.monotonic()
            rows = self._store.compute(work)
            return Computed(rows, started_s - arrival_s, time.monotonic() - started_s)

        self._num_calls += 1
        try:
            if self._store.num_multiplications(work) <= _INLINE_MULTIPLICATIONS:
                done = run()
            else:
                done = await self._within(self._computing, run, deadline_s, "compute")
        finally:
            self._num_calls -= 1
        self._num_rows_done += len(work.rows)
        self._metrics.computed(len(work.rows), done.queue_s, done.compute_s)
        return done

    async def load(self, keys: Iterable[ExpertKey], deadline_s: float) -> None:
        """Raises `Overloaded` where they do not fit; see `ExpertStore.load`."""
        wanted = list(keys)
        await self._within(self._moving, lambda: self._store.load(wanted), deadline_s, "load")
        self._metrics.holds(len(self._store.keys), self._store.num_bytes)

    async def drop(self, keys: Iterable[ExpertKey], deadline_s: float) -> None:
        """Calls under way still finish."""
        unwanted = list(keys)
        await self._within(self._moving, lambda: self._store.drop(unwanted), deadline_s, "drop")
        self._metrics.holds(len(self._store.keys), self._store.num_bytes)

    def close(self) -> None:
        """Ends the threads once they are idle."""
        for threads in (self._computing, self._moving):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _within(
        self, threads: ThreadPoolExecutor, work: Callable[[], T], deadline_s: float, stage: str
    ) -> T:
        """Runs in a thread. What is cancelled, or late, before its turn is never run."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + deadline_s - time.monotonic()):
                return await loop.run_in_executor(threads, work)
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the experts were done", stage=stage
            ) from None
