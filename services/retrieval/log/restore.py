"""A new log from a snapshot, for when the store's data is lost for good.

    REDIS_URL=... python -m services.retrieval.log.restore [--snapshots FOLDER]

Writes the newest usable snapshot into an empty store as a log of its own, document by document.
What was written after the snapshot is not in it. Old snapshots are left where they are: move them
away before replicas start, as they are of the lost log.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from services.retrieval.index.generation import Generation
from services.retrieval.log.entries import CollectionCreated, DocumentPut, encode
from services.retrieval.log.manifest import Manifest, SnapshotInvalid
from services.retrieval.log.position import Position
from services.retrieval.log.snapshots import SnapshotInfo, SnapshotStore
from services.retrieval.log.state import CollectionView
from services.retrieval.log.stream import Append, LogStream
from services.retrieval.types import IndexedDocument
from services.runtime import store
from services.runtime.config import Settings, SettingsError
from services.runtime.errors import NotReady, OrreryError

__all__ = ["restore"]

PAGE = 256


async def restore(stream: LogStream, snapshots: SnapshotStore) -> SnapshotInfo:
    """Returns what was restored. Raises `NotReady` when nothing can be or a log is there."""
    if (await stream.open()).log_id is not None:
        raise NotReady("the store holds a log: nothing was restored")
    info, views = await asyncio.to_thread(_newest, snapshots)
    log_id = uuid.uuid4().hex
    tail = (await stream.open(log_id)).tail
    for view in views:
        created = CollectionCreated(view.name, view.title, view.config, view.metadata)
        tail = await _append(stream, log_id, tail, [Append(view.name, view.id, encode(created))])
        for documents in _pages(view.generation):
            puts = [Append(view.name, view.id, encode(DocumentPut(each))) for each in documents]
            tail = await _append(stream, log_id, tail, puts)
    return info


async def _append(
    stream: LogStream, log_id: str, tail: Position, appends: list[Append]
) -> Position:
    for outcome in await stream.append(log_id, tail, appends):
        if isinstance(outcome, OrreryError):
            raise outcome
        tail = outcome
    return tail


def _newest(snapshots: SnapshotStore) -> tuple[SnapshotInfo, tuple[CollectionView, ...]]:
    for position in snapshots.positions():
        try:
            log_id = Manifest.read(snapshots.folder / str(position)).log_id
        except SnapshotInvalid:
            continue
        found = snapshots.load_newest(log_id)
        if found.info is not None:
            return found.info, found.collections
    raise NotReady("there is no usable snapshot: nothing was restored")


def _pages(generation: Generation) -> Iterator[list[IndexedDocument]]:
    after = ""
    while ids := generation.document_ids(after=after, limit=PAGE):
        page = []
        for document_id in ids:
            held = generation.get(document_id)
            assert held is not None
            page.append(IndexedDocument(held.info, tuple(held.chunks), held.vectors))
        yield page
        after = ids[-1]


async def _main(folder: Path, url: str) -> str:
    redis = store.connect(url)
    try:
        info = await restore(LogStream(redis), SnapshotStore(folder))
    finally:
        await redis.aclose()
    return f"{info.num_collections} collections, {info.num_documents} documents of {info.position}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.retrieval.log.restore",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--snapshots", type=Path, help="default: those of the data folder")
    folder: Path | None = parser.parse_args().snapshots
    try:
        settings = Settings.from_env()
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL: not set")
        folder = folder or settings.data_dir / "retrieval" / "snapshots"
        restored = asyncio.run(_main(folder, settings.redis_url.get_secret_value()))
    except (OrreryError, SettingsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"Restored {restored}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
