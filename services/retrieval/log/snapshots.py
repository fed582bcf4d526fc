"""Snapshots on disk: the state as of a position, so that a replica need not replay all of the log.

    <folder>/<position>/manifest.json
                        <collection id>.safetensors

Each is self-contained: no file is shared between two, so what damages one leaves the others. It
appears whole, by a rename, after everything in it is on the disk. Knows nothing of Redis.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from services.retrieval.index.collection_index import CollectionIndex
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.log.manifest import (
    FILE_NAME,
    CollectionRecord,
    Manifest,
    SnapshotInvalid,
    file_sha256,
)
from services.retrieval.log.position import Position
from services.retrieval.log.state import CollectionView, Frozen, FrozenCollection

__all__ = ["Found", "Rejected", "SnapshotFailed", "SnapshotInfo", "SnapshotStore"]

_UNFINISHED = ".unfinished-"


class SnapshotFailed(Exception):
    """A snapshot could not be written; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot: up to where in the log it holds everything, and how much that is."""

    position: Position
    num_collections: int
    num_documents: int
    num_chunks: int
    num_bytes: int

    @staticmethod
    def of(manifest: Manifest) -> SnapshotInfo:
        records = manifest.collections
        return SnapshotInfo(
            position=Position.parse(manifest.position),
            num_collections=len(records),
            num_documents=sum(record.num_documents for record in records),
            num_chunks=sum(record.num_chunks for record in records),
            num_bytes=sum(record.num_bytes for record in records),
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """A snapshot that cannot be used, by its folder's name, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search for a usable snapshot came to. `info` None: there is none."""

    info: SnapshotInfo | None
    collections: tuple[CollectionView, ...]
    rejected: tuple[Rejected, ...]


class SnapshotStore:
    """The snapshots in one folder, which all replicas of one log share. All methods block."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        if keep < 2:
            raise ValueError("keep: expected at least 2, so that a corrupt one has one before it")
        self.folder = folder
        self._keep = keep

    def positions(self) -> list[Position]:
        """Of all there are, usable or not, newest first."""
        try:
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(_positions(names), reverse=True)

    def load_newest(
        self,
        log_id: str,
        *,
        after: Position | None = None,
        policy: SegmentPolicy | None = None,
    ) -> Found:
        """The newest usable snapshot of a log, and past `after` where given."""
        rejected = []
        for position in self.positions():
            if after is not None and position <= after:
                break
            try:
                manifest = self._valid(position, log_id)
                collections = self._load(manifest, policy)
            except SnapshotInvalid as error:
                rejected.append(Rejected(str(position), str(error)))
                continue
            return Found(SnapshotInfo.of(manifest), collections, tuple(rejected))
        return Found(None, (), tuple(rejected))

    def kept(self, log_id: str) -> list[SnapshotInfo]:
        """The newest usable ones of a log, as many as are kept, newest first; reads all of them."""
        kept: list[SnapshotInfo] = []
        for position in self.positions():
            try:
                kept.append(SnapshotInfo.of(self._valid(position, log_id)))
            except SnapshotInvalid:
                continue
            if len(kept) == self._keep:
                break
        return kept

    def write(self, log_id: str, frozen: Frozen) -> SnapshotInfo:
        """Writes a snapshot, unless there is a whole one of that position.

        Raises `SnapshotFailed`, with the reason, when it cannot; nothing of it is left then.
        """
        with suppress(SnapshotInvalid):
            return SnapshotInfo.of(self._valid(frozen.position, log_id))
        partial = self.folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            records = tuple(_write_collection(partial, item) for item in frozen.collections)
            manifest = Manifest(log_id=log_id, position=str(frozen.position), collections=records)
            _write_durably(partial / FILE_NAME, manifest.to_bytes())
            _sync_folder(partial)
            self._put_in_place(partial, frozen.position, log_id)
        except (OSError, SafetensorError) as error:
            raise SnapshotFailed(str(error)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return SnapshotInfo.of(manifest)

    def prune(self, kept: list[SnapshotInfo]) -> None:
        """Removes what is older than the oldest of `kept`, if that is as many as should be."""
        if len(kept) < self._keep:
            return
        for position in self.positions():
            if position < kept[-1].position:
                self._discard(self.folder / str(position))

    def remove_unfinished(self) -> None:
        """What writers that died have left. Only while nobody else writes."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _valid(self, position: Position, log_id: str) -> Manifest:
        folder = self.folder / str(position)
        manifest = Manifest.read(folder)
        if manifest.log_id != log_id:
            raise SnapshotInvalid(f"of another log ({manifest.log_id})")
        manifest.check_files(folder)
        return manifest

    def _load(self, manifest: Manifest, policy: SegmentPolicy | None) -> tuple[CollectionView, ...]:
        folder = self.folder / manifest.position
        return tuple(_load_collection(folder, record, policy) for record in manifest.collections)

    def _put_in_place(self, partial: Path, position: Position, log_id: str) -> None:
        target = self.folder / str(position)
        if target.exists():
            with suppress(SnapshotInvalid):
                self._valid(position, log_id)
                return  # another replica was faster; the state of a position is the same
            self._discard(target)
        partial.rename(target)
        _sync_folder(self.folder)

    def _discard(self, path: Path) -> None:
        # Renamed first: one that is half removed is not taken for a snapshot.
        doomed = self.folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


def _positions(names: list[str]) -> Iterator[Position]:
    for name in names:
        try:
            position = Position.parse(name)
        except ValueError:
            continue
        if str(position) == name:
            yield position


def _write_collection(folder: Path, item: FrozenCollection) -> CollectionRecord:
    view, generation = item.view, item.generation
    path = folder / f"{view.id}.safetensors"
    save_file(view.index.to_arrays(generation), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return CollectionRecord(
        id=view.id,
        name=view.name,
        title=view.title,
        config=view.config,
        metadata=dict(view.metadata),
        created_at_ms=view.created_at_ms,
        last_write_at_ms=view.last_write_at_ms,
        num_documents=generation.num_documents,
        num_chunks=generation.num_chunks,
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )


def _load_collection(
    folder: Path, record: CollectionRecord, policy: SegmentPolicy | None
) -> CollectionView:
    try:
        arrays = load_file(folder / record.file_name)
        index = CollectionIndex.from_arrays(record.config, arrays, policy)
    except (OSError, SafetensorError, ValueError) as error:
        raise SnapshotInvalid(f"{record.file_name}: {error}") from error
    return CollectionView(
        id=record.id,
        name=record.name,
        title=record.title,
        config=record.config,
        metadata=record.metadata,
        created_at_ms=record.created_at_ms,
        last_write_at_ms=record.last_write_at_ms,
        index=index,
    )


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
