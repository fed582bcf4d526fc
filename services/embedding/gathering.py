"""Small pieces of work of many callers, brought to a few threads together.

    map(a1 a2 a3) ──┐                in turns: a1 b1 c1 a2 ...     one trip, one way back
    map(b1)       ──┼──> line ──> as many as one trip may cost ──> a thread ──> a1 b1 c1 a2
    map(c1)       ──┘

Taking a piece to a thread and its result back costs the event loop more than many a piece costs the
thread. So while the threads are busy, what comes gathers, and goes together: an idle pool adds no
delay, and a busy one saves ways. A caller with one piece does not wait behind one with hundreds.
Used from one event loop. Knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

__all__ = ["GatheringPool"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Caller:
    work: Callable[[Any], Any]
    left: deque[tuple[int, Any, int]]  # place, item, cost of what waits
    results: list[Any]
    num_pending: int
    done: asyncio.Future[None]

    def receive(self, place: int, outcome: _Outcome) -> None:
        if self.done.done():  # it failed, or its task has gone
            return
        if outcome.error is not None:
            self.done.set_exception(outcome.error)
            return
        self.results[place] = outcome.result
        self.num_pending -= 1
        if self.num_pending == 0:
            self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None


_Trip = list[tuple[_Caller, int, Any]]


class GatheringPool:
    """Threads, and the line before them. A trip holds one piece, or several of `max_cost`."""

    def __init__(self, num_threads: int, max_cost: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)
        self._num_threads = num_threads
        self._max_cost = max_cost
        self._line: deque[_Caller] = deque()  # those with something left, the next one first
        self._num_out = 0
        self._start_is_due = False

    async def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], costs: Sequence[int]
    ) -> list[Result]:
        """`work` on each item in a thread; results in the order of the items.

        Raises what `work` raises for one of them; the rest is then left. So it is where the calling
        task is cancelled; what a thread has begun it ends, and nobody hears of it.
        """
        if not items:
            return []
        left = deque(zip(range(len(items)), items, costs, strict=True))
        done = asyncio.get_running_loop().create_future()
        caller = _Caller(work, left, [None] * len(items), len(items), done)
        self._line.append(caller)
        self._schedule()
        try:
            await done
        finally:
            caller.left.clear()
        return caller.results

    def close(self) -> None:
        """Ends the threads once they are idle."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _schedule(self) -> None:
        """Sends trips when the loop has heard all who call in this moment."""
        if not self._start_is_due:
            self._start_is_due = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._start_is_due = False
        while self._num_out < self._num_threads:
            trip = self._gather()
            if not trip:
                return
            self._num_out += 1
            out = asyncio.get_running_loop().run_in_executor(self._threads, _work_off, trip)
            out.add_done_callback(partial(self._arrive, trip))

    def _gather(self) -> _Trip:
        trip: _Trip = []
        room = self._max_cost
        while self._line:
            caller = self._line[0]
            if caller.left:
                place, item, cost = caller.left[0]
                if trip and cost > room:
                    break
                caller.left.popleft()
                trip.append((caller, place, item))
                room -= cost
            self._line.popleft()
            if caller.left:
                self._line.append(caller)
        return trip

    def _arrive(self, trip: _Trip, out: asyncio.Future[list[_Outcome]]) -> None:
        self._num_out -= 1
        if out.cancelled():
            outcomes = [_Outcome(error=RuntimeError("the threads were shut down"))] * len(trip)
        else:
            outcomes = out.result()
        for (caller, place, _), outcome in zip(trip, outcomes, strict=True):
            caller.receive(place, outcome)
        self._schedule()


def _work_off(trip: _Trip) -> list[_Outcome]:
    """In a thread. One piece's failure is its own."""
    return [_outcome(caller, item) for caller, _, item in trip]


def _outcome(caller: _Caller, item: Any) -> _Outcome:
    if caller.done.done():  # nobody waits for it any more
        return _Outcome()
    try:
        return _Outcome(caller.work(item))
    except Exception as error:  # noqa: BLE001 - it is given to whoever asked
        return _Outcome(error=error)
