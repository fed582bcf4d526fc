"""Merges index segments in the background: planned and installed by the writer, run beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services.retrieval.log.metrics import LogMetrics
from services.retrieval.log.state import CollectionView

__all__ = ["Merger"]

_LOG = logging.getLogger("orrery.retrieval.log")
InWriter = Callable[[Callable[[], Any]], Awaitable[Any]]


class Merger:
    """One merge at a time, whatever the number of collections."""

    def __init__(self, in_writer: InWriter, metrics: LogMetrics) -> None:
        self._in_writer = in_writer
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="retrieval-merge")
        self._turn = asyncio.Lock()
        self._changed: dict[str, CollectionView] = {}
        self._task: asyncio.Task[None] | None = None
        self._rebuilds: set[asyncio.Task[bool]] = set()

    def notice(self, changed: Iterable[CollectionView]) -> None:
        """These have changed: looks in time whether something should be merged."""
        self._changed.update((view.id, view) for view in changed)
        if self._changed and self._task is None:
            self._task = asyncio.create_task(self._run(), name="retrieval-log-merger")

    async def rebuild(self, view: CollectionView) -> None:
        """Merges everything into one segment; goes on when the caller gives up."""
        task = asyncio.create_task(self._merge(view, everything=True), name="retrieval-log-rebuild")
        self._rebuilds.add(task)
        task.add_done_callback(self._rebuilds.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Waits for the merge that runs: it cannot be stopped half-way."""
        self._changed.clear()
        running = [*self._rebuilds, *([self._task] if self._task else [])]
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self) -> None:
        while self._changed:
            view = self._changed.pop(next(iter(self._changed)))
            try:
                if await self._merge(view):
                    self._changed.setdefault(view.id, view)  # there may be more to merge
            except Exception:  # noqa: BLE001 - the index goes on with more segments
                self._metrics.merge_failures.inc()
                _LOG.exception("a merge failed", extra={"collection": view.name})
        self._task = None

    async def _merge(self, view: CollectionView, *, everything: bool = False) -> bool:
        """Whether there was something to merge. Never cancelled: a planned merge must end."""
        index = view.index
        async with self._turn:
            merge = await self._in_writer(lambda: index.plan_merge(everything=everything))
            if merge is None:
                return False
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, merge.run)
            except BaseException:
                await self._in_writer(lambda: index.abandon(merge))
                raise
            await self._in_writer(lambda: index.install(merge))
        return True
