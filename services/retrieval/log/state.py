"""What the log adds up to: every collection with its index, as of a position.

`LogState` is changed by one thread at a time. What readers hold is immutable: they take the
`directory`, then a collection's `generation`, and no lock. Knows nothing of Redis, threads or
files; the same entries give the same state everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.generation import Generation
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.log.entries import (
    CollectionCreated,
    CollectionDeleted,
    CollectionUpdated,
    DocumentPut,
    DocumentsRemoved,
    LogEntry,
    UnreadableEntry,
    decode,
)
from services.retrieval.log.position import START, Position
from services.retrieval.types import CollectionConfig

__all__ = ["CollectionView", "Directory", "Frozen", "FrozenCollection", "LogState"]


_ID = re.compile(r"[0-9a-f]{32}")  # names a file in every snapshot


@dataclass(frozen=True, slots=True, eq=False)
class CollectionView:
    """A collection as this replica sees it. Times are Unix milliseconds of the store's clock."""

    id: str
    name: str
    title: str
    config: CollectionConfig
    metadata: Mapping[str, str]
    created_at_ms: int
    last_write_at_ms: int
    index: CollectionIndex

    @property
    def generation(self) -> Generation:
        """The newest generation of the index; immutable, so take it once per search."""
        return self.index.generation


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """All collections, by name and by id."""

    by_name: Mapping[str, CollectionView]
    by_id: Mapping[str, CollectionView]

    @staticmethod
    def of(views: Iterable[CollectionView]) -> Directory:
        by_id = {view.id: view for view in views}
        by_name = {view.name: view for view in sorted(by_id.values(), key=lambda view: view.name)}
        return Directory(MappingProxyType(by_name), MappingProxyType(by_id))


@dataclass(frozen=True, slots=True, eq=False)
class FrozenCollection:
    """A collection as of one moment: `view.index` goes on, `generation` does not."""

    view: CollectionView
    generation: Generation


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """The whole state as of a position: what a snapshot holds."""

    position: Position
    collections: tuple[FrozenCollection, ...]


class LogState:
    """Applies entries in order."""

    def __init__(
        self,
        policy: SegmentPolicy | None = None,
        position: Position = START,
        collections: Iterable[CollectionView] = (),
    ) -> None:
        self._policy = policy
        self._position = position
        self._directory = Directory.of(collections)

    @property
    def position(self) -> Position:
        """The last entry applied."""
        return self._position

    @property
    def directory(self) -> Directory:
        """May be read from any thread."""
        return self._directory

    def freeze(self) -> Frozen:
        return Frozen(
            self._position,
            tuple(
                FrozenCollection(view, view.generation) for view in self._directory.by_id.values()
            ),
        )

    def apply(self, entries: Sequence[LogEntry]) -> list[str]:
        """Applies entries, in one new generation of each index; returns the changed ones' ids.

        Raises `UnreadableEntry`; nothing is applied then.
        """
        batch = _Batch(self._directory.by_id, self._policy)
        for entry in entries:
            batch.add(entry)
        for collection_id, changes in batch.changes.items():
            batch.views[collection_id].index.apply(changes)
        self._directory = Directory.of(batch.views.values())
        self._position = entries[-1].position
        return list(batch.changes)


class _Batch:
    """Sorts entries by collection; what a deletion makes moot is dropped."""

    def __init__(self, views: Mapping[str, CollectionView], policy: SegmentPolicy | None) -> None:
        self.views = dict(views)
        self.changes: dict[str, list[Put | Remove]] = {}
        self._policy = policy

    def add(self, entry: LogEntry) -> None:
        try:
            change = decode(entry.encoded)
        except UnreadableEntry as error:
            raise UnreadableEntry(f"entry {entry.position}: {error}") from error
        if isinstance(change, CollectionCreated):
            if _ID.fullmatch(entry.collection_id) is None:
                raise UnreadableEntry(f"entry {entry.position}: a collection id of another form")
            self.views[entry.collection_id] = CollectionView(
                id=entry.collection_id,
                name=change.name,
                title=change.title,
                config=change.config,
                metadata=change.metadata,
                created_at_ms=entry.position.ms,
                last_write_at_ms=entry.position.ms,
                index=CollectionIndex(change.config, self._policy),
            )
            return
        view = self.views.get(entry.collection_id)
        if view is None:
            raise UnreadableEntry(f"entry {entry.position}: of a collection that does not exist")
        match change:
            case CollectionDeleted():
                del self.views[view.id]
                self.changes.pop(view.id, None)
            case CollectionUpdated():
                self.views[view.id] = replace(
                    view,
                    title=view.title if change.title is None else change.title,
                    metadata=view.metadata if change.metadata is None else change.metadata,
                )
            case DocumentPut(document):
                if document.vectors.shape[1] != view.config.dimensions:
                    raise UnreadableEntry(f"entry {entry.position}: vectors of another dimension")
                self._change(view, entry, Put(document))
            case DocumentsRemoved(document_ids):
                self._change(view, entry, Remove(document_ids))

    def _change(self, view: CollectionView, entry: LogEntry, change: Put | Remove) -> None:
        self.views[view.id] = replace(view, last_write_at_ms=entry.position.ms)
        self.changes.setdefault(view.id, []).append(change)
