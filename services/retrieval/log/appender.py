"""Appending for many callers at once: what waits while one batch is on its way goes in the next.

The store makes a batch durable with one fsync, so writers that come together share its cost.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from dataclasses import dataclass

from services.retrieval.log.metrics import LogMetrics
from services.retrieval.log.position import Position
from services.retrieval.log.stream import Append, LogStream
from services.runtime.errors import DependencyDown, Internal, NotReady, OrreryError, Overloaded

__all__ = ["Appender", "AppenderLimits"]

_LOG = logging.getLogger("orrery.retrieval.log")


@dataclass(frozen=True, slots=True)
class AppenderLimits:
    """Of one round trip, and of what may wait for the next."""

    max_batch_entries: int = 256
    max_batch_bytes: int = 8 << 20
    max_waiting_entries: int = 4096
    max_waiting_bytes: int = 256 << 20


@dataclass(slots=True, eq=False)
class _Waiting:
    append: Append
    done: asyncio.Future[Position]

    @property
    def num_bytes(self) -> int:
        return self.append.encoded.num_bytes


class Appender:
    """Appends to one log on one event loop. `known` only grows."""

    def __init__(
        self,
        stream: LogStream,
        log_id: str,
        known: Position,
        metrics: LogMetrics,
        limits: AppenderLimits,
    ) -> None:
        self._stream = stream
        self._log_id = log_id
        self._metrics = metrics
        self._limits = limits
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._work: asyncio.Task[None] | None = None
        self._closed = False
        self.known = known

    async def append(self, append: Append) -> Position:
        """Returns when the entry is in the log.

        Raises what the log says against it, `Overloaded` when too much waits already, and
        `DependencyDown` when the store is away: the entry may then be in the log or not.
        """
        if self._closed:
            raise NotReady("the service is shutting down", retry_after_s=1.0)
        limits = self._limits
        if (
            len(self._waiting) >= limits.max_waiting_entries
            or self._waiting_bytes >= limits.max_waiting_bytes
        ):
            raise Overloaded("too many writes are waiting", retry_after_s=1.0)
        waiting = _Waiting(append, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.num_bytes
        if self._work is None:
            self._work = asyncio.create_task(self._run(), name="retrieval-log-append")
        return await waiting.done

    async def close(self) -> None:
        """Refuses what waits, and lets what is on its way end."""
        self._closed = True
        self._refuse_waiting(NotReady("the service is shutting down", retry_after_s=1.0))
        if self._work is not None:
            await self._work

    async def _run(self) -> None:
        try:
            while batch := self._take():
                await self._send(batch)
        finally:
            self._work = None

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        num_bytes = 0
        while self._waiting and len(batch) < self._limits.max_batch_entries:
            if batch and num_bytes + self._waiting[0].num_bytes > self._limits.max_batch_bytes:
                break
            waiting = self._waiting.popleft()
            self._waiting_bytes -= waiting.num_bytes
            if not waiting.done.done():  # its caller has not given up
                batch.append(waiting)
                num_bytes += waiting.num_bytes
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        appends = [waiting.append for waiting in batch]
        try:
            outcomes = await self._stream.append(self._log_id, self.known, appends)
        except DependencyDown as error:
            for waiting in batch:
                _settle(waiting, error)
            # What waits would only wait for the same to happen again.
            self._refuse_waiting(error)
            return
        except Exception:  # noqa: BLE001 - no caller may wait for ever
            _LOG.exception("appending to the log failed")
            for waiting in batch:
                _settle(waiting, Internal("the write could not be appended to the log"))
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Position):
                self.known = max(self.known, outcome)
                self._metrics.appended.inc()
            _settle(waiting, outcome)

    def _refuse_waiting(self, error: OrreryError) -> None:
        for waiting in self._waiting:
            _settle(waiting, error)
        self._waiting.clear()
        self._waiting_bytes = 0


def _settle(waiting: _Waiting, outcome: Position | OrreryError) -> None:
    if waiting.done.done():
        return
    if isinstance(outcome, Position):
        waiting.done.set_result(outcome)
    else:
        # A copy each: a caller may add to its error.
        waiting.done.set_exception(copy.copy(outcome))
