"""skeleton: the signatures are final"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from services.retrieval.log.position import Position
from services.retrieval.log.snapshots import SnapshotInfo, SnapshotStore
from services.retrieval.log.state import CollectionView
from services.retrieval.types import CollectionConfig, IndexedDocument
from services.runtime.metrics import MetricsRegistry

__all__ = ["Replica", "ReplicaOptions"]


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How a replica reads the log and when it writes snapshots. Everything has a default."""

    start_limit_s: float = 60.0
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 256 << 20


class Replica:
    """All collections in this process, kept up to date from the log."""

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
        raise NotImplementedError

    # --- reading: from memory, whatever Redis does -------------------------------------------

    def collection(self, name: str) -> CollectionView:
        """Raises `CollectionNotFound` (field "collection")."""
        raise NotImplementedError

    def collections(self) -> list[CollectionView]:
        """All, by name."""
        raise NotImplementedError

    @property
    def applied(self) -> Position:
        """The last entry that searches see."""
        raise NotImplementedError

    @property
    def tail(self) -> Position:
        """The log's last entry as last heard."""
        raise NotImplementedError

    @property
    def log_available(self) -> bool:
        """Whether writes are possible: the store answers, and its log is the one followed."""
        raise NotImplementedError

    @property
    def failure(self) -> str | None:
        """Why this replica can never again follow the log (it needs a restart), or None."""
        raise NotImplementedError

    @property
    def snapshot_position(self) -> Position | None:
        """Of the newest snapshot."""
        raise NotImplementedError

    async def wait_for(self, token: str | None, deadline_s: float | None) -> None:
        """Returns when searches see what the token stands for; `deadline_s` seconds from now.

        Raises `InvalidRequest` (field "consistency_token") for a token that is none of this log,
        `DeadlineExceeded`, or `DependencyDown` when the time is up and the store is away.
        """
        raise NotImplementedError

    async def sync(self, deadline_s: float | None) -> None:
        """Returns when searches see every write that was acknowledged before the call.

        Raises `DependencyDown` when the store is away, `NotReady`, or `DeadlineExceeded`.
        """
        raise NotImplementedError

    # --- writing: in the log when they return -------------------------------------------------
    # All raise `DependencyDown` when the store is away (the write may or may not have happened;
    # repeating it is harmless), `NotReady` when the log is not the one this replica follows, and
    # `CollectionNotFound` (field "collection").

    async def create_collection(
        self, name: str, title: str, config: CollectionConfig, metadata: Mapping[str, str]
    ) -> Position:
        """Raises `AlreadyExists` (field "name")."""
        raise NotImplementedError

    async def update_collection(
        self, name: str, *, title: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Position:
        """None leaves it as it is."""
        raise NotImplementedError

    async def delete_collection(self, name: str) -> Position:
        raise NotImplementedError

    async def put(self, collection_id: str, document: IndexedDocument) -> Position:
        """Adds a document, or replaces the one of its id."""
        raise NotImplementedError

    async def remove(self, collection_id: str, document_ids: Sequence[str]) -> Position:
        """Ids that are not there are left out."""
        raise NotImplementedError

    # --- housekeeping --------------------------------------------------------------------------

    async def rebuild(self, name: str) -> None:
        """Merges a collection's segments into one, here. Raises `CollectionNotFound`."""
        raise NotImplementedError

    async def snapshot(self) -> SnapshotInfo:
        """Writes a snapshot now, unless the newest one holds everything already.

        Raises `DependencyDown` when it cannot be written.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Ends all work; what is appended and not yet answered ends as `NotReady`."""
        raise NotImplementedError
