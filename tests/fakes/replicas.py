"""Small documents and what a replica holds, for tests of the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from services.retrieval.log.replica import Replica, ReplicaOptions
from services.retrieval.log.snapshots import SnapshotStore
from services.retrieval.log.state import CollectionView
from services.retrieval.types import Chunk, CollectionConfig, DocumentInfo, IndexedDocument, Metric
from services.runtime import store

__all__ = ["DIMENSIONS", "config", "contents", "document", "replica", "state_of"]

DIMENSIONS = 4


def config(dimensions: int = DIMENSIONS) -> CollectionConfig:
    return CollectionConfig(dimensions=dimensions, metric=Metric.DOT)


def document(
    document_id: str, value: int, num_chunks: int = 1, dimensions: int = DIMENSIONS
) -> IndexedDocument:
    """A document whose content, hash, metadata and vectors all say `value`."""
    info = DocumentInfo(
        id=document_id,
        title=f"Title {value}",
        file_name=f"{document_id}.txt",
        media_type="text/plain",
        content_hash=f"{document_id}:{value}",
        num_bytes=10,
        written_at_ms=value,
        metadata={"value": float(value), "odd": value % 2 == 1, "tags": ("a", str(value))},
    )
    chunks = tuple(
        Chunk(f"text {value} of {document_id}", 0, 5, ("Heading",), 1, 2, 0, {"part": float(part)})
        for part in range(num_chunks)
    )
    seed = np.random.default_rng(value)
    vectors = seed.standard_normal((num_chunks, dimensions)).astype(np.float32)
    return IndexedDocument(info, chunks, vectors)


def contents(view: CollectionView) -> dict[str, tuple[object, ...]]:
    """Everything that a collection holds, comparable: document id -> info, chunks, vectors."""
    generation = view.generation
    held: dict[str, tuple[object, ...]] = {}
    for document_id in generation.document_ids(limit=1_000_000):
        found = generation.get(document_id)
        assert found is not None
        vectors = np.asarray(found.vectors)
        held[document_id] = (found.info, tuple(found.chunks), vectors.shape, vectors.tobytes())
    assert len(held) == generation.num_documents
    return held


def state_of(replica: Replica) -> dict[str, tuple[object, ...]]:
    """Everything that a replica holds, comparable."""
    return {
        view.name: (
            *(view.id, view.title, view.config, dict(view.metadata)),
            *(view.created_at_ms, view.last_write_at_ms, contents(view)),
        )
        for view in replica.collections()
    }


@asynccontextmanager
async def replica(
    url: str, folder: Path, options: ReplicaOptions | None = None
) -> AsyncIterator[Replica]:
    """A replica of the log at `url` with its snapshots in `folder`."""
    redis = store.connect(url, call_timeout_s=5)
    try:
        running = await Replica.start(redis, SnapshotStore(folder), options)
        try:
            yield running
        finally:
            await running.close()
    finally:
        await redis.aclose()
