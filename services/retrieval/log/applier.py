"""Keeps a state up to date with the log: reads, checks that nothing is missing, applies.

        read a page ──► does it go on from what was applied?
           ▲               │ yes                │ entries were trimmed   │ no: another history
           │         apply (writer thread)      load a newer snapshot    say so, look again later
         wait ◄───── publish `applied` ◄────────┘

While the store is away, everything applied so far stays readable; it reconnects by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.log.entries import UnreadableEntry
from services.retrieval.log.metrics import LogMetrics
from services.retrieval.log.position import Position
from services.retrieval.log.snapshots import Found, SnapshotStore
from services.retrieval.log.state import LogState
from services.retrieval.log.stream import LogStream, Page
from services.runtime.errors import DependencyDown, NotReady

__all__ = ["Applier", "Listener"]

_LOG = logging.getLogger("orrery.retrieval.log")
ResultT = TypeVar("ResultT")
# Called on the event loop after a page was applied, with the ids of the changed collections.
Listener = Callable[[Page, list[str]], None]

FIRST_RETRY_S, LAST_RETRY_S = 0.05, 1.0
TROUBLE_RETRY_S = 2.0
WAIT_S = 1.0
MAX_PAGE_ENTRIES, MAX_PAGE_BYTES = 1024, 4 << 20


class _Trouble(Exception):
    """The store answers, but what it holds does not go on from what was applied."""


class _Trimmed(_Trouble):
    """Entries that were not applied are gone from the log; a snapshot may have them."""


class Applier:
    """Follows one log on one event loop. Everything that changes the state runs `in_writer`."""

    def __init__(
        self,
        stream: LogStream,
        log_id: str,
        snapshots: SnapshotStore,
        policy: SegmentPolicy | None,
        metrics: LogMetrics,
    ) -> None:
        self.stream = stream
        self.log_id = log_id
        self._snapshots = snapshots
        self._policy = policy
        self._metrics = metrics
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="retrieval-writer")
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._changed = asyncio.Event()
        self.state = LogState(policy)
        self.applied = self.tail = self.state.position
        self.snapshot_position: Position | None = None
        self.num_replayed = self.num_bytes_replayed = 0  # since the snapshot that was loaded
        self.available = False
        self._behind_since_s: float | None = None  # None: all that is known of was applied
        self.trouble: str | None = None  # passes when the store holds the right log again
        self.failure: str | None = None  # stays: this replica needs a restart

    @property
    def behind_s(self) -> float:
        """For how long searches have not seen all of the log while it could be read."""
        since_s = self._behind_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def catch_up(self) -> None:
        """Loads the newest snapshot and applies the log up to its end, as of now.

        Raises `NotReady` when snapshots and log do not fit, `DependencyDown` when the store is
        away; may be called again then.
        """
        try:
            if self.snapshot_position is None:
                await self._load(after=None)
            head = await self.stream.open()
            while True:
                await self._step()
                if self.applied >= head.tail:
                    return
        except (_Trouble, UnreadableEntry) as error:
            raise NotReady(str(error)) from error

    def follow(self, listener: Listener) -> None:
        """Goes on with the log until `close`."""
        self._listener = listener
        self._task = asyncio.create_task(self._follow(), name="retrieval-log-applier")

    async def wait_until(self, target: Position) -> None:
        """Returns when searches see the entry `target`. Raises `NotReady` when that cannot be."""
        while self.applied < target:
            self.check()
            await self._changed.wait()

    def check(self) -> None:
        """Raises `NotReady` with the reason while this replica is not one of its log."""
        reason = self.failure or self.trouble
        if reason is not None:
            raise NotReady(f"the retrieval log cannot be followed: {reason}")

    async def in_writer(self, work: Callable[[], ResultT]) -> ResultT:
        """Runs `work` on the one thread that may change the state."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def close(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            # Python 3.11's wait_for may swallow a cancellation: the flag ends the task then.
            await asyncio.wait({self._task})
        self.failure = self.failure or "the service is shutting down"
        self._tell()
        await asyncio.to_thread(self._writer.shutdown)

    # --- the task ------------------------------------------------------------------------------

    async def _follow(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._closing:
            try:
                await self._step()
                retry_s = FIRST_RETRY_S
                if self.applied >= self.tail and not self._closing:
                    await self.stream.wait(self.applied, WAIT_S)
                continue
            except DependencyDown as error:
                self._set_away(error)
                await self.stream.forget_connections()
                await asyncio.sleep(retry_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
                retry_s = min(retry_s * 2, LAST_RETRY_S)
            except (_Trouble, UnreadableEntry) as error:
                self._set_trouble(str(error))
                await asyncio.sleep(TROUBLE_RETRY_S)
            except Exception as error:  # noqa: BLE001 - told to all callers and the health check
                _LOG.exception("the log cannot be applied")
                self.failure = f"an entry could not be applied ({type(error).__name__})"
                self._set_available(False)
                self._tell()
                return

    async def _step(self) -> None:
        """Reads and applies one page, which may be empty."""
        page = await self.stream.read(self.applied, MAX_PAGE_ENTRIES, MAX_PAGE_BYTES)
        try:
            self._check(page)
        except _Trimmed as error:
            self._hear_of(page.head.tail)
            if not await self._load(after=self.applied):
                raise _Trouble(f"{error}, and no snapshot here goes further") from error
            return
        self.trouble = None
        self._metrics.redis_available.set(1.0)
        self._set_available(True)
        self._hear_of(page.head.tail)
        self.snapshot_position = page.head.snapshot or self.snapshot_position
        changed: list[str] = []
        if page.entries:
            changed = await self.in_writer(lambda: self.state.apply(page.entries))
            self.num_replayed += len(page.entries)
            self.num_bytes_replayed += page.num_bytes
        self._publish()
        self._metrics.entries_applied.inc(len(page.entries))
        if self._listener is not None:
            self._listener(page, changed)

    def _check(self, page: Page) -> None:
        """Raises unless the page's entries are exactly the next ones of the history applied."""
        head, last = page.head, self.applied
        if head.log_id is None:
            raise _Trouble("the store is empty: it was wiped, or its data was not found")
        if head.log_id != self.log_id:
            raise _Trouble("the store holds another log")
        for entry in page.entries:
            if entry.previous < last:
                raise _Trouble(f"the log went back before {last}: the store has an older state")
            if entry.previous > last:
                raise _Trimmed(f"the log was trimmed behind {entry.previous}; {last} was applied")
            last = entry.position
        if head.tail < last:
            raise _Trouble(f"the log ends at {head.tail}, before {last}: the store has lost writes")
        if not page.entries and head.tail > last:
            raise _Trimmed(f"the log was trimmed behind {head.tail}; {last} was applied")

    async def _load(self, *, after: Position | None) -> bool:
        """Replaces the state by the newest usable snapshot; whether there was one."""
        started = time.monotonic()
        found = await asyncio.to_thread(
            self._snapshots.load_newest, self.log_id, after=after, policy=self._policy
        )
        self._report_rejected(found)
        if found.info is None:
            return False
        self.state = LogState(self._policy, found.info.position, found.collections)
        self.snapshot_position = found.info.position
        self.num_replayed = self.num_bytes_replayed = 0
        self._publish()
        _LOG.info(
            "loaded a snapshot",
            extra={
                "position": str(found.info.position),
                "num_chunks": found.info.num_chunks,
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return True

    def _report_rejected(self, found: Found) -> None:
        for rejected in found.rejected:
            self._metrics.snapshots_rejected.inc()
            _LOG.error(
                "a snapshot cannot be used",
                extra={"snapshot": rejected.name, "reason": rejected.reason},
            )

    def _hear_of(self, tail: Position) -> None:
        self.tail = tail
        if self.applied < tail and self._behind_since_s is None:
            self._behind_since_s = time.monotonic()

    def _publish(self) -> None:
        self.applied = self.state.position
        self.tail = max(self.tail, self.applied)
        if self.applied >= self.tail:
            self._behind_since_s = None
        self._metrics.applied_lag_s.set((self.tail.ms - self.applied.ms) / 1000)
        self._metrics.hold(self.state.directory.by_id.values())
        self._tell()

    def _set_away(self, error: DependencyDown) -> None:
        if self.available:
            _LOG.warning("the log is away", extra={"reason": error.message})
        self._metrics.redis_available.set(0.0)
        self._set_available(False)

    def _set_trouble(self, reason: str) -> None:
        if self.trouble != reason:
            _LOG.error("the log cannot be followed", extra={"reason": reason})
        self.trouble = reason
        self._set_available(False)
        self._tell()

    def _set_available(self, available: bool) -> None:
        self.available = available
        if not available:  # nobody can write, or nobody can tell what: that is said otherwise
            self._behind_since_s = None
        self._metrics.log_available.set(float(available))

    def _tell(self) -> None:
        """Wakes all who wait for something to change."""
        self._changed.set()
        self._changed = asyncio.Event()
