"""When snapshots are written, by which replica, and what is dropped after that.

The log is trimmed behind the older of the two newest snapshots, both read again and found whole,
so whatever happens to one of them, the other and the log give the same state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.retrieval.log.lease import Lease
from services.retrieval.log.metrics import LogMetrics
from services.retrieval.log.position import START, Position
from services.retrieval.log.snapshots import SnapshotFailed, SnapshotInfo, SnapshotStore
from services.retrieval.log.state import Frozen
from services.retrieval.log.stream import LogStream, Page
from services.runtime.errors import DependencyDown, OrreryError, Overloaded

__all__ = ["SnapshotPolicy", "Snapshotter"]

_LOG = logging.getLogger("orrery.retrieval.log")


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """How much log there may be since the newest snapshot before the next is written.

    For a large index it may be a quarter of what that holds: what is written to the disk stays in
    proportion to what comes in.
    """

    max_entries: int = 50_000
    max_bytes: int = 256 << 20
    fraction: float = 0.25
    retry_s: float = 60.0  # after one that could not be written
    lease_s: float = 30.0  # how long a replica that died while writing one blocks the others
    lease_wait_s: float = 30.0  # for another replica that is writing, when asked for one


class Snapshotter:
    """Writes the snapshots of one replica; `freeze` gives it the state to write."""

    def __init__(
        self,
        stream: LogStream,
        store: SnapshotStore,
        lease: Lease,
        log_id: str,
        freeze: Callable[[], Awaitable[Frozen]],
        policy: SnapshotPolicy,
        metrics: LogMetrics,
    ) -> None:
        self._stream = stream
        self._store = store
        self._lease = lease
        self._log_id = log_id
        self._freeze = freeze
        self._policy = policy
        self._metrics = metrics
        self.newest: Position | None = None  # snapshot, of any replica
        self._newest_size = (0, 0)  # entries and bytes that it stands for, roughly
        self._since = [0, 0]  # entries and bytes of the log since then
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[SnapshotInfo]] = set()

    def begin(self, newest: Position | None, num_entries: int, num_bytes: int) -> None:
        """After the start: the newest snapshot there is, and the log that was replayed since."""
        self.newest = newest
        self._since = [num_entries, num_bytes]

    def notice(self, page: Page) -> None:
        """A page was applied; begins a snapshot when enough has come together."""
        if page.head.snapshot is not None and page.head.snapshot != self.newest:
            self.newest = page.head.snapshot  # another replica wrote one
            self._since = [0, 0]
        self._since[0] += len(page.entries)
        self._since[1] += page.num_bytes
        if self._is_due() and self._task is None and time.monotonic() >= self._not_before:
            self._task = asyncio.create_task(self._in_background(), name="retrieval-log-snapshot")

    async def snapshot(self) -> SnapshotInfo:
        """Writes one now, unless there is one that holds everything; goes on when not waited for.

        Raises `DependencyDown` when it cannot be written or the store is away, `Overloaded` when
        another replica is at it.
        """
        task = asyncio.create_task(self._write(self._policy.lease_wait_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Waits for the ones being written."""
        running = [*self._tasks, *([self._task] if self._task else [])]
        await asyncio.gather(*running, return_exceptions=True)

    async def _write(self, wait_s: float) -> SnapshotInfo:
        async with self._lease.hold(wait_s):
            await asyncio.to_thread(self._store.remove_unfinished)
            frozen = await self._freeze()
            started = time.monotonic()
            try:
                info = await asyncio.to_thread(self._store.write, self._log_id, frozen)
            except SnapshotFailed as error:
                self._metrics.snapshot_failures.inc()
                _LOG.error("a snapshot could not be written", extra={"reason": str(error)})
                raise DependencyDown(
                    f"the snapshot could not be written: {error}", retry_after_s=60.0
                ) from error
            self._note_written(info, time.monotonic() - started)
            await self._trim()
        return info

    def _is_due(self) -> bool:
        entries, num_bytes = self._since
        policy, (known_entries, known_bytes) = self._policy, self._newest_size
        return entries >= max(policy.max_entries, policy.fraction * known_entries) or (
            num_bytes >= max(policy.max_bytes, policy.fraction * known_bytes)
        )

    async def _in_background(self) -> None:
        try:
            await self._write(wait_s=0)
        except Overloaded:  # by the replica that will have written one when it is done
            self._not_before = time.monotonic() + min(self._policy.lease_s, self._policy.retry_s)
        except OrreryError as error:
            self._not_before = time.monotonic() + self._policy.retry_s
            _LOG.warning("no snapshot was written", extra={"reason": error.message})
        except Exception:  # noqa: BLE001 - the log holds everything all the same
            self._not_before = time.monotonic() + self._policy.retry_s
            self._metrics.snapshot_failures.inc()
            _LOG.exception("a snapshot failed")
        finally:
            self._task = None

    def _note_written(self, info: SnapshotInfo, seconds: float) -> None:
        self.newest = info.position
        self._newest_size = (info.num_documents, info.num_bytes)
        self._since = [0, 0]
        self._metrics.snapshot_s.observe(seconds)
        self._metrics.snapshot_bytes.set(info.num_bytes)
        _LOG.info(
            "wrote a snapshot",
            extra={"position": str(info.position), "num_bytes": info.num_bytes},
        )

    async def _trim(self) -> None:
        kept = await asyncio.to_thread(self._store.kept, self._log_id)
        if not kept or not await self._lease.is_held():
            return
        oldest = kept[-1].position if len(kept) > 1 else START
        if await self._stream.note_snapshots(self._log_id, kept[0].position, oldest):
            await asyncio.to_thread(self._store.prune, kept)
