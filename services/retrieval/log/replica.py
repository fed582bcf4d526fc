"""A replica: all collections in this process's memory, kept up to date from the log.

The one door of this package: reads are answered from memory, writes return when they are in the
log. What happens behind it: `applier` (log -> memory), `appender` (writes -> log), `merger` (index
segments), `snapshotter` (memory -> disk).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from redis.asyncio import Redis

from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.log.appender import Appender, AppenderLimits
from services.retrieval.log.applier import Applier
from services.retrieval.log.entries import (
    Change,
    CollectionCreated,
    CollectionDeleted,
    CollectionUpdated,
    DocumentPut,
    DocumentsRemoved,
    encode,
)
from services.retrieval.log.lease import Lease
from services.retrieval.log.merger import Merger
from services.retrieval.log.metrics import LogMetrics
from services.retrieval.log.position import Position
from services.retrieval.log.snapshots import SnapshotInfo, SnapshotStore
from services.retrieval.log.snapshotter import SnapshotPolicy, Snapshotter
from services.retrieval.log.state import CollectionView, Frozen
from services.retrieval.log.stream import PREFIX, Append, LogStream, Page
from services.retrieval.types import CollectionConfig, IndexedDocument
from services.runtime.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
    NotReady,
)
from services.runtime.metrics import MetricsRegistry, PrometheusRegistry

__all__ = ["Replica", "ReplicaOptions"]

_LOG = logging.getLogger("orrery.retrieval.log")
RETRY_S = 0.2
MAX_INLINE_CHUNKS = 64  # more are encoded in a thread
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How a replica starts, indexes and writes. Everything has a default."""

    start_limit_s: float = 60.0  # how long the store may be away at the start
    segments: SegmentPolicy | None = None
    snapshots: SnapshotPolicy = field(default_factory=SnapshotPolicy)
    appends: AppenderLimits = field(default_factory=AppenderLimits)


class Replica:
    """Used on one event loop. Reads never wait for Redis."""

    def __init__(
        self,
        redis: Redis,
        applier: Applier,
        snapshots: SnapshotStore,
        options: ReplicaOptions,
        metrics: LogMetrics,
    ) -> None:
        """Of an applier that has caught up; use `start`."""
        self._stream = stream = applier.stream
        self._applier = applier
        self._appender = Appender(stream, applier.log_id, applier.applied, metrics, options.appends)
        self._merger = Merger(applier.in_writer, metrics)
        self._snapshotter = Snapshotter(
            stream,
            snapshots,
            Lease(redis, f"{PREFIX}snapshot-lease", time_to_live_s=options.snapshots.lease_s),
            applier.log_id,
            self._freeze,
            options.snapshots,
            metrics,
        )
        self._snapshotter.begin(
            applier.snapshot_position, applier.num_replayed, applier.num_bytes_replayed
        )
        applier.follow(self._on_applied)
        self._merger.notice(self.collections())

    @classmethod
    async def start(
        cls,
        redis: Redis,
        snapshots: SnapshotStore,
        options: ReplicaOptions | None = None,
        metrics: MetricsRegistry | None = None,
    ) -> Replica:
        """Returns when it has caught up with the log's end.

        Raises `DependencyDown` when the store stays away for `start_limit_s`, `NotReady` when what
        it holds does not fit the snapshots. The caller keeps `redis` and closes it after `close`.
        """
        options = options or ReplicaOptions()
        recorded = LogMetrics.of(metrics or PrometheusRegistry({"service": "retrieval"}))
        stream = LogStream(redis)
        deadline = time.monotonic() + options.start_limit_s
        log_id = await _retry(lambda: _open_log(stream, snapshots), deadline)
        applier = Applier(stream, log_id, snapshots, options.segments, recorded)
        try:
            await _retry(applier.catch_up, deadline)
        except BaseException:
            await applier.close()
            raise
        return cls(redis, applier, snapshots, options, recorded)

    # --- reading: from memory, whatever Redis does -------------------------------------------

    def collection(self, name: str) -> CollectionView:
        """Raises `CollectionNotFound` (field "collection")."""
        view = self._applier.state.directory.by_name.get(name)
        if view is None:
            raise CollectionNotFound(f"no collection {name!r}", field="collection")
        return view

    def collections(self) -> list[CollectionView]:
        """All, by name."""
        return list(self._applier.state.directory.by_name.values())

    @property
    def applied(self) -> Position:
        """The last entry that searches see."""
        return self._applier.applied

    @property
    def tail(self) -> Position:
        """The log's last entry as last heard."""
        return max(self._applier.tail, self._appender.known)

    @property
    def log_available(self) -> bool:
        """Whether writes are possible: the store answers, and its log is the one followed."""
        return self._applier.available

    @property
    def failure(self) -> str | None:
        """Why this replica will not follow the log again without a restart, or None."""
        return self._applier.failure

    @property
    def trouble(self) -> str | None:
        """Why the log that the store holds is not the one followed, or None."""
        return self._applier.trouble

    @property
    def behind_s(self) -> float:
        """For how long searches have not seen all of the log while it could be read."""
        return self._applier.behind_s

    @property
    def snapshot_position(self) -> Position | None:
        """Of the newest snapshot."""
        return self._snapshotter.newest

    async def wait_for(self, token: str | None, deadline_s: float | None) -> None:
        """Returns when searches see what the token stands for; `deadline_s` seconds from now.

        Raises `InvalidRequest` (field "consistency_token") for a token that is none of this log,
        `DeadlineExceeded`, or `DependencyDown` when the time is up and the store is away.
        """
        if not token:
            return
        target = Position.of_token(token)
        if target <= self.applied:
            return
        try:
            async with asyncio.timeout(deadline_s):
                if target > self.tail:
                    await self._check_exists(target)
                await self._applier.wait_until(target)
        except TimeoutError:
            if not self.log_available:
                raise DependencyDown(
                    "consistency_token: the store is away, and this write was not read before",
                    retry_after_s=1.0,
                ) from None
            raise DeadlineExceeded("the time is up before the write was applied here") from None

    async def sync(self, deadline_s: float | None) -> None:
        """Returns when searches see every write that was acknowledged before the call.

        Raises `DependencyDown` when the store is away, `NotReady`, or `DeadlineExceeded`.
        """
        try:
            async with asyncio.timeout(deadline_s):
                self._applier.check()
                head = await self._stream.open()
                await self._applier.wait_until(head.tail)
        except TimeoutError:
            raise DeadlineExceeded("the time is up before the log was applied here") from None

    # --- writing: in the log when they return -------------------------------------------------
    # All raise `DependencyDown` when the store is away (the write may or may not have happened;
    # repeating it is harmless), `NotReady` when the log is not the one this replica follows,
    # `Overloaded` when too many writes wait.

    async def create_collection(
        self, name: str, title: str, config: CollectionConfig, metadata: Mapping[str, str]
    ) -> Position:
        """Raises `AlreadyExists` (field "name")."""
        change = CollectionCreated(name, title, config, metadata)
        return await self._append(name, uuid.uuid4().hex, change)

    async def update_collection(
        self, name: str, *, title: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Position:
        """None leaves it as it is. Raises `CollectionNotFound` (field "collection")."""
        return await self._append(name, "", CollectionUpdated(title, metadata))

    async def delete_collection(self, name: str) -> Position:
        """Raises `CollectionNotFound` (field "collection")."""
        return await self._append(name, "", CollectionDeleted())

    async def put(self, collection_id: str, document: IndexedDocument) -> Position:
        """Adds a document, or replaces the one of its id.

        Raises `CollectionNotFound` (field "collection"), also when the collection was made anew
        since, and `InvalidRequest` (field "vector") for vectors that do not fit.
        """
        view = self._by_id(collection_id)
        if document.vectors.ndim != 2 or document.vectors.shape[1] != view.config.dimensions:
            raise InvalidRequest(
                f"vector: expected {view.config.dimensions} numbers for each chunk", field="vector"
            )
        return await self._append(view.name, collection_id, DocumentPut(document))

    async def remove(self, collection_id: str, document_ids: Sequence[str]) -> Position:
        """Ids that are not there are left out. Raises `CollectionNotFound` (field "collection")."""
        view = self._by_id(collection_id)
        return await self._append(view.name, collection_id, DocumentsRemoved(tuple(document_ids)))

    # --- housekeeping --------------------------------------------------------------------------

    async def rebuild(self, name: str) -> None:
        """Merges a collection's segments into one, here. Raises `CollectionNotFound`."""
        await self._merger.rebuild(self.collection(name))

    async def snapshot(self) -> SnapshotInfo:
        """Writes a snapshot now, unless there is one that holds everything; trims the log.

        Raises `DependencyDown` when it cannot be written, `Overloaded` while another replica is
        writing one, `NotReady`.
        """
        self._applier.check()
        return await self._snapshotter.snapshot()

    async def close(self) -> None:
        """Ends all work; writes that wait to be appended end as `NotReady`."""
        await self._appender.close()
        await self._snapshotter.close()
        await self._merger.close()
        await self._applier.close()

    # --- inside ----------------------------------------------------------------------------------

    def _by_id(self, collection_id: str) -> CollectionView:
        view = self._applier.state.directory.by_id.get(collection_id)
        if view is None:
            raise CollectionNotFound("the collection is gone", field="collection")
        return view

    async def _append(self, name: str, collection_id: str, change: Change) -> Position:
        self._applier.check()
        if isinstance(change, DocumentPut) and len(change.document.chunks) > MAX_INLINE_CHUNKS:
            encoded = await asyncio.to_thread(encode, change)
        else:
            encoded = encode(change)
        return await self._appender.append(Append(name, collection_id, encoded))

    async def _check_exists(self, target: Position) -> None:
        try:
            head = await self._stream.open()
        except DependencyDown:
            return  # the entry may come when the store is back
        if target > head.tail:
            raise InvalidRequest(
                "consistency_token: beyond the end of the log: not a token of this service's log",
                field="consistency_token",
            )

    async def _freeze(self) -> Frozen:
        return await self._applier.in_writer(lambda: self._applier.state.freeze())

    def _on_applied(self, page: Page, changed: list[str]) -> None:
        by_id = self._applier.state.directory.by_id
        self._appender.known = max(self._appender.known, page.head.tail)
        self._merger.notice(by_id[id_] for id_ in changed if id_ in by_id)
        self._snapshotter.notice(page)


async def _open_log(stream: LogStream, snapshots: SnapshotStore) -> str:
    """The log's id. Begins a log where there is none, unless there was one once."""
    head = await stream.open()
    if head.log_id is None:
        there = await asyncio.to_thread(snapshots.positions)
        if there:
            raise NotReady(
                f"the store holds no log, but there are snapshots of one up to {there[0]}: restore "
                "the store's data, or move the snapshots away to begin with nothing"
            )
        head = await stream.open(uuid.uuid4().hex)
    if head.log_id is None:
        raise NotReady("the store holds a part of a log only: restore its data")
    return head.log_id


async def _retry(attempt: Callable[[], Awaitable[ResultT]], deadline: float) -> ResultT:
    """Again and again while the store is away, up to a moment of the monotonic clock."""
    waiting = False
    while True:
        try:
            return await attempt()
        except DependencyDown as error:
            if time.monotonic() >= deadline:
                raise
            if not waiting:
                _LOG.warning("waiting for the log", extra={"reason": error.message})
            waiting = True
            await asyncio.sleep(RETRY_S)
