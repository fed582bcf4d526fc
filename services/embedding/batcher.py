"""Dynamic batching: inputs of concurrent callers share the batches of one worker thread.

    run(jobs) ──┐                    turn order                       length order
    run(jobs) ──┼──> waiting ──> the first few of them ──> the neighbours of the first ──> compute
    run(jobs) ──┘    (bounded)                             within the token budget        (worker)

While a batch is computed the next one gathers, so an idle service adds no delay and a busy one
batches by itself. Turns are those of fair queueing: an input's turn is the virtual time at which a
server that gave all calls equal shares would begin with it (Demers, Keshav and Shenker 1989). So a
call with one input does not wait behind a call with a thousand, and calls with one input are first
come, first served. A batch always holds the input whose turn it is: none starves. Equal inputs, by
key, are computed once for all who wait for them. An input that nobody waits for any more leaves the
queue at once. Knows nothing of models, texts, gRPC or Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, Protocol, TypeVar, cast

from services.embedding.bucketing import neighbours, window_size
from services.runtime.errors import DeadlineExceeded, NotReady, Overloaded
from services.runtime.work_health import WorkHealth

__all__ = ["Answers", "BatchObserver", "BatchStats", "Batcher", "Job"]

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Job(Generic[PayloadT]):
    """One input. Jobs with equal keys have equal results."""

    key: bytes
    num_tokens: int
    payload: PayloadT


@dataclass(frozen=True, slots=True)
class Answers(Generic[ResultT]):
    """What a call gets: one result for each job, in the order of the jobs.

    `queue_s` is from the call until the first batch with an input of it began.
    """

    results: list[ResultT]
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One finished batch. `num_callers_inputs` counts repeated inputs each time."""

    num_inputs: int
    num_callers_inputs: int
    num_orphaned: int  # inputs that nobody waits for any more
    num_tokens: int
    num_padded_tokens: int
    queue_s: Sequence[float]  # of each input
    compute_s: float
    failed: bool


class BatchObserver(Protocol):
    """Is told of the batches and the queue; called on the event loop."""

    def batch_finished(self, stats: BatchStats) -> None: ...

    def queue_changed(self, num_waiting: int, num_running: int) -> None: ...


@dataclass(eq=False, slots=True)
class _Caller:
    deadline_s: float
    arrival_s: float
    done: asyncio.Future[None]
    results: list[object]
    num_left: int
    entries: list[_Entry] = field(default_factory=list)
    started_s: float | None = None

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class _Entry:
    """A distinct input that waits or runs, and who waits for it: caller -> places in its call."""

    key: bytes
    num_tokens: int
    payload: object
    turn: float  # virtual time, in tokens
    arrival_s: float
    waiters: dict[_Caller, list[int]] = field(default_factory=dict)
    running: bool = False


class Batcher(Generic[PayloadT, ResultT]):
    """Runs `compute` on batches in `executor`, one at a time. Used from one event loop.

    `compute` gets the payloads of one batch and returns as many results, in order. Of a batch with
    more than one input, inputs times the longest input's tokens is at most `max_tokens`.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[PayloadT]], Sequence[ResultT]],
        executor: Executor,
        max_tokens: int,
        max_waiting: int,
        observer: BatchObserver,
        health: WorkHealth,
    ) -> None:
        self._compute = compute
        self._executor = executor
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        self._observer = observer
        self._health = health
        self._queue: list[_Entry] = []  # by turn
        self._by_key: dict[bytes, _Entry] = {}  # waiting and running
        self._running: list[_Entry] = []
        self._virtual_time = 0.0
        self._num_callers = 0
        self._start_is_due = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_waiting(self) -> int:
        """Distinct inputs in the queue."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """Distinct inputs in the batch under way."""
        return len(self._running)

    @property
    def failure(self) -> str | None:
        """Why no batch is to be expected any more; None = they go on."""
        return self._health.failure

    async def run(self, jobs: Sequence[Job[PayloadT]], deadline_s: float) -> Answers[ResultT]:
        """All results, or an error; leaving early, for whatever reason, takes the rest back.

        `deadline_s` is on `time.monotonic`. Raises `Overloaded`, `DeadlineExceeded`, `NotReady`,
        or `RuntimeError` where `compute` failed.
        """
        arrival_s = time.monotonic()
        if not jobs:
            return Answers([], 0.0, 0.0)
        self._admit(len(jobs))
        done = asyncio.get_running_loop().create_future()
        caller = _Caller(deadline_s, arrival_s, done, [None] * len(jobs), len(jobs))
        self._num_callers += 1
        self._enqueue(caller, jobs)
        try:
            async with asyncio.timeout(max(0.0, deadline_s - arrival_s)):
                await done
        except TimeoutError:
            raise _expired() from None
        finally:
            self._num_callers -= 1
            self._leave(caller)
            if done.done() and not done.cancelled():
                done.exception()  # seen, also where the task was cancelled in the same moment
        started_s = arrival_s if caller.started_s is None else caller.started_s
        return Answers(
            cast(list[ResultT], caller.results),
            queue_s=started_s - arrival_s,
            compute_s=time.monotonic() - started_s,
        )

    async def close(self) -> None:
        """Refuses what waits, then waits for the batch under way."""
        self._closed = True
        for entry in self._queue:
            for caller in entry.waiters:
                caller.fail(NotReady("the service is shutting down", retry_after_s=1.0))
            del self._by_key[entry.key]
        self._queue = []
        await self._idle.wait()

    # --- the queue ----------------------------------------------------------------------------

    def _admit(self, num_jobs: int) -> None:
        if self._closed:
            raise NotReady("the service is shutting down", retry_after_s=1.0)
        if len(self._queue) + num_jobs > self._max_waiting:
            raise Overloaded(
                f"{len(self._queue)} inputs wait already; at most {self._max_waiting} may",
                retry_after_s=1.0,
            )

    def _enqueue(self, caller: _Caller, jobs: Sequence[Job[PayloadT]]) -> None:
        turn = self._virtual_time
        added = []
        for place, job in enumerate(jobs):
            entry = self._by_key.get(job.key)
            if entry is None:
                entry = _Entry(job.key, job.num_tokens, job.payload, turn, caller.arrival_s)
                self._by_key[job.key] = entry
                added.append(entry)
            elif not entry.running and turn < entry.turn:  # the newcomer's turn is sooner
                entry.turn = turn
            if entry.running and caller.started_s is None:
                caller.started_s = caller.arrival_s
            turn += job.num_tokens
            places = entry.waiters.get(caller)
            if places is None:
                entry.waiters[caller] = [place]
                caller.entries.append(entry)
            else:
                places.append(place)
        self._queue.extend(added)
        self._queue.sort(key=attrgetter("turn"))  # two sorted runs, nearly: linear
        self._schedule_start()

    def _leave(self, caller: _Caller) -> None:
        """Takes back what the caller still waits for, if anything."""
        num_abandoned = 0
        for entry in caller.entries:
            if entry.waiters.pop(caller, None) is not None and not entry.waiters:
                num_abandoned += not entry.running
        caller.entries.clear()
        if num_abandoned:
            self._drop_abandoned()
            self._report()

    def _drop_abandoned(self) -> None:
        kept = []
        for entry in self._queue:
            if entry.waiters:
                kept.append(entry)
            else:
                del self._by_key[entry.key]
        self._queue = kept

    def _drop_expired(self) -> None:
        """Before a batch is chosen: the event loop may be behind with its timers."""
        now_s = time.monotonic()
        expired = {
            caller
            for entry in self._window()
            for caller in entry.waiters
            if caller.deadline_s <= now_s
        }
        for caller in expired:
            caller.fail(_expired())
            self._leave(caller)

    # --- batches ------------------------------------------------------------------------------

    def _schedule_start(self) -> None:
        """Starts a batch when the loop has heard all who call in this moment."""
        if not self._start_is_due and not self._running and self._queue:
            self._start_is_due = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._start_is_due = False
        self._drop_expired()
        batch = self._take()
        self._running = batch
        self._report()
        if not batch:
            self._idle.set()
            return
        started_s = time.monotonic()
        self._health.began()
        for entry in batch:
            for caller in entry.waiters:
                if caller.started_s is None:
                    caller.started_s = started_s
        payloads = [cast(PayloadT, entry.payload) for entry in batch]
        computing = asyncio.get_running_loop().run_in_executor(
            self._executor, self._compute, payloads
        )
        computing.add_done_callback(lambda future: self._finish(future, batch, started_s))

    def _window(self) -> list[_Entry]:
        """The first waiting inputs, from which the next batch is chosen."""
        lengths = [entry.num_tokens for entry in self._queue]
        return self._queue[: window_size(lengths, self._max_tokens)]

    def _take(self) -> list[_Entry]:
        """The next batch, shortest first, out of the queue."""
        window = self._window()
        if not window:
            return []
        chosen = neighbours([entry.num_tokens for entry in window], self._max_tokens)
        batch = [window[position] for position in chosen]
        for entry in batch:
            entry.running = True
        self._queue[: len(window)] = [entry for entry in window if not entry.running]
        # Time runs at the pace at which each of the calls would get its share.
        num_tokens = sum(entry.num_tokens for entry in batch)
        self._virtual_time += num_tokens / max(1, self._num_callers)
        return batch

    def _finish(
        self, future: asyncio.Future[Sequence[ResultT]], batch: list[_Entry], started_s: float
    ) -> None:
        now_s = time.monotonic()
        error = None if not future.cancelled() else RuntimeError("the worker was shut down")
        error = error or future.exception()  # type: ignore[assignment]
        results: Sequence[object] = () if error is not None else future.result()
        if error is None and len(results) != len(batch):
            error = RuntimeError(f"{len(batch)} inputs, but {len(results)} results")
        if error is None:
            self._health.succeeded()
        else:
            self._health.failed()
        self._observer.batch_finished(_stats(batch, started_s, now_s, error is not None))
        self._running = []
        for position, entry in enumerate(batch):
            del self._by_key[entry.key]
            if error is None:
                _deliver(entry, results[position])
            else:
                _fail(entry, error)
        self._schedule_start()
        if not self._start_is_due:
            self._idle.set()
        self._report()

    def _report(self) -> None:
        self._observer.queue_changed(len(self._queue), len(self._running))


def _expired() -> DeadlineExceeded:
    return DeadlineExceeded("the time of the request was up before its vectors", stage="embed")


def _deliver(entry: _Entry, result: object) -> None:
    for caller, places in entry.waiters.items():
        for place in places:
            caller.results[place] = result
        caller.num_left -= len(places)
        if caller.num_left == 0 and not caller.done.done():
            caller.done.set_result(None)
    entry.waiters.clear()


def _fail(entry: _Entry, error: BaseException) -> None:
    for caller in entry.waiters:
        failure = RuntimeError("a batch failed")  # one for each caller: each has its traceback
        failure.__cause__ = error
        caller.fail(failure)
    entry.waiters.clear()


def _stats(batch: list[_Entry], started_s: float, now_s: float, failed: bool) -> BatchStats:
    return BatchStats(
        num_inputs=len(batch),
        num_callers_inputs=sum(len(places) for entry in batch for places in entry.waiters.values()),
        num_orphaned=sum(not entry.waiters for entry in batch),
        num_tokens=sum(entry.num_tokens for entry in batch),
        num_padded_tokens=len(batch) * max(entry.num_tokens for entry in batch),
        queue_s=[started_s - entry.arrival_s for entry in batch],
        compute_s=now_s - started_s,
        failed=failed,
    )
