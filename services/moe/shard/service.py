"""The work of a shard: computes in one thread, in the order of arrival, what is too much to be done
at once; loads experts in another.

A call that is given up, or whose time is up, while it waits costs nothing. Knows nothing of gRPC,
protobuf or Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.shard.expert_store import ExpertStore
from services.moe.shard.metrics import ShardMetrics
from services.moe.shard_work import ShardWork
from services.runtime.errors import DeadlineExceeded, Overloaded
from services.runtime.work_health import WorkHealth

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

    def __init__(
        self,
        store: ExpertStore,
        metrics: ShardMetrics,
        health: WorkHealth,
        max_waiting_bytes: int,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._health = health  # of what is computed in line
        self._max_waiting_bytes = max_waiting_bytes
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="moe-shard-compute")
        self._moving = ThreadPoolExecutor(1, thread_name_prefix="moe-shard-load")
        self._num_calls = 0
        self._num_bytes = 0  # of their rows
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

    @property
    def failure(self) -> str | None:
        """Why this replica has to be replaced; None = it has not."""
        return self._health.failure

    def compute(self, work: ShardWork, deadline_s: float) -> Computed | Awaitable[Computed]:
        """At once, or in line where it would hold up the event loop.

        `deadline_s` is on `time.monotonic`. Raises `ResourceNotFound` for an expert that is not
        held, `Overloaded`; waiting for it raises `DeadlineExceeded`.
        """
        self._store.check_held(work)
        if self._store.num_multiplications(work) <= _INLINE_MULTIPLICATIONS:
            return self._done(work, self._run(work, time.monotonic()))
        num_bytes = work.rows.nbytes
        if self._num_bytes and self._num_bytes + num_bytes > self._max_waiting_bytes:
            raise Overloaded(f"{self._num_bytes} bytes of rows wait already", retry_after_s=0.1)
        return self._in_line(work, num_bytes, deadline_s)

    async def _in_line(self, work: ShardWork, num_bytes: int, deadline_s: float) -> Computed:
        arrival_s = time.monotonic()
        run = partial(self._run_in_line, work, arrival_s)
        self._num_calls += 1
        self._num_bytes += num_bytes
        try:
            return self._done(work, await self._within(self._computing, run, deadline_s, "compute"))
        finally:
            self._num_calls -= 1
            self._num_bytes -= num_bytes

    def _run_in_line(self, work: ShardWork, arrival_s: float) -> Computed:
        self._health.began()
        try:
            computed = self._run(work, arrival_s)
        except Exception:
            self._health.failed()
            raise
        self._health.succeeded()
        return computed

    def _run(self, work: ShardWork, arrival_s: float) -> Computed:
        started_s = time.monotonic()
        rows = self._store.compute(work)
        return Computed(rows, started_s - arrival_s, time.monotonic() - started_s)

    def _done(self, work: ShardWork, done: Computed) -> Computed:
        self._num_rows_done += len(work.rows)
        # After the answer has left: no router waits for it.
        loop = asyncio.get_running_loop()
        loop.call_later(0, self._metrics.computed, len(work.rows), done.queue_s, done.compute_s)
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
