"""Concurrent searches made one batch: of one generation, with equal options.

    search --+                                   +--> hits
    search --+--> waiting --> one call in a      +--> hits
    search --+    (by group)  worker thread      +--> hits

While one batch runs, what arrives waits for the next: the busier, the larger the batches, and an
idle service answers at once. Callers that were answered together tend to ask again together: after
a batch of several the next one is held for a moment, so that they need not split into two halves
that wait for each other, at two passes over the vectors instead of one. Knows asyncio; the index
does not.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from services.retrieval.index.filters import filter_key
from services.retrieval.index.generation import Generation
from services.retrieval.types import Hit, Query, SearchOptions
from services.runtime.errors import Overloaded

__all__ = ["SearchBatcher"]

_RETRY_AFTER_S = 0.5
# How long the next batch is held for the callers of the last one, as a share of its time.
_GATHER_SHARE = 0.25
_MAX_GATHER_S = 0.02


@dataclass(slots=True, eq=False)
class _Search:
    query: Query
    answer: asyncio.Future[list[Hit]]
    waits: bool = True  # no batch has taken it


@dataclass(slots=True, eq=False)
class _Group:
    """Searches that one call answers."""

    generation: Generation
    options: SearchOptions
    limit: int | None
    searches: deque[_Search]


class SearchBatcher:
    """Used from one event loop.

    `on_batch(searches, seconds)` is told of every batch that ran, `on_queue(waiting)` of the queue.
    """

    def __init__(
        self,
        run_in: Executor,
        *,
        max_batch: int = 64,
        max_waiting: int = 1024,
        max_running: int = 1,
        on_batch: Callable[[int, float], None] = lambda _searches, _seconds: None,
        on_queue: Callable[[int], None] = lambda _waiting: None,
    ) -> None:
        """`max_running`: batches at a time, at most as many as `run_in` has threads."""
        self._executor = run_in
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_running = max_running
        self._on_batch = on_batch
        self._on_queue = on_queue
        self._groups: dict[Hashable, _Group] = {}  # in order of arrival
        self._tasks: set[asyncio.Task[float]] = set()
        self._num_waiting = 0
        self._num_searching = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._num_expected = 0  # searches at which it need not gather on

    @property
    def num_waiting(self) -> int:
        """Searches that no batch has taken yet, without those given up."""
        return self._num_waiting

    @property
    def num_running(self) -> int:
        """Searches in batches that run."""
        return self._num_searching

    async def search(
        self,
        generation: Generation,
        query: Query,
        options: SearchOptions,
        *,
        limit: int | None = None,
    ) -> list[Hit]:
        """`Generation.candidates` of one query.

        Raises what that raises, Overloaded beyond `max_waiting`. Cancelled while waiting, it
        costs nothing.
        """
        generation.check_query(query, options.mode)  # one bad query would fail its batch
        if self._num_waiting >= self._max_waiting:
            raise Overloaded(
                f"{self._max_waiting} searches are waiting", retry_after_s=_RETRY_AFTER_S
            )
        # to Python, options with a filter on 1 equal those with one on True
        plain = replace(options, filter=None)
        key = (id(generation), plain, filter_key(options.filter), limit)
        group = self._groups.get(key)
        if group is None:  # it holds the generation, whose id stays its own so long
            group = self._groups[key] = _Group(generation, options, limit, deque())
        search = _Search(query, asyncio.get_running_loop().create_future())
        group.searches.append(search)
        self._count_waiting(1)
        self._start()
        try:
            return await search.answer
        finally:
            self._take(search)

    def _take(self, search: _Search) -> None:
        if search.waits:
            search.waits = False
            self._count_waiting(-1)

    def _count_waiting(self, difference: int) -> None:
        self._num_waiting += difference
        self._on_queue(self._num_waiting)

    def _start(self) -> None:
        if self._gathering is not None:
            if self._num_waiting < self._num_expected:
                return
            self._gathering.cancel()
            self._gathering = None
        while self._groups and len(self._tasks) < self._max_running:
            key, group = next(iter(self._groups.items()))
            batch: list[_Search] = []
            while group.searches and len(batch) < self._max_batch:
                search = group.searches.popleft()
                self._take(search)
                if not search.answer.done():  # not cancelled
                    batch.append(search)
            if group.searches:
                # others first
                self._groups[key] = self._groups.pop(key)
            else:
                del self._groups[key]
            if batch:
                self._num_searching += len(batch)
                task = asyncio.get_running_loop().create_task(self._run(group, batch))
                self._tasks.add(task)
                task.add_done_callback(partial(self._ended, len(batch)))

    def _ended(self, num_searches: int, task: asyncio.Task[float]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if num_searches > 1 and self._gathering is None:
            hold_s = min(_MAX_GATHER_S, _GATHER_SHARE * task.result())
            self._num_expected = min(self._max_batch, self._num_waiting + num_searches)
            self._gathering = asyncio.get_running_loop().call_later(hold_s, self._gathered)
        self._start()

    def _gathered(self) -> None:
        self._gathering = None
        self._start()

    async def _run(self, group: _Group, batch: list[_Search]) -> float:
        """Answers the batch; returns the seconds it took."""
        started = time.perf_counter()
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._executor,
                lambda: group.generation.candidates(
                    [search.query for search in batch], group.options, limit=group.limit
                ),
            )
        except asyncio.CancelledError:
            for search in batch:
                search.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is the outcome of every search in it
            for search in batch:
                if not search.answer.done():
                    search.answer.set_exception(error)
        else:
            for search, hits in zip(batch, found, strict=True):
                if not search.answer.done():
                    search.answer.set_result(hits)
        finally:
            seconds = time.perf_counter() - started
            self._num_searching -= len(batch)
            self._on_batch(len(batch), seconds)
        return seconds
