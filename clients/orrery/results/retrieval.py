"""What calls of the retrieval service return: collections, documents, hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from orrery.errors import OrreryError
from orrery.results.common import StageTiming, Timing, Usage

__all__ = [
    "Chunk",
    "Collection",
    "CollectionConfig",
    "DeleteResult",
    "Hit",
    "Metadata",
    "MetadataField",
    "MetadataValue",
    "RetrievalLoad",
    "SearchBatchResult",
    "SearchResult",
    "SnapshotInfo",
    "StoredDocument",
    "UpsertReport",
    "UpsertResult",
    "UpsertStatus",
]

MetadataValue: TypeAlias = str | float | bool | tuple[str, ...]
"""A value that can be filtered by. Numbers are doubles."""

Metadata: TypeAlias = Mapping[str, MetadataValue]

UpsertStatus: TypeAlias = Literal["added", "replaced", "unchanged", "failed", "unknown"]
"""What became of a document; unknown = a status that is newer than this client."""


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """How a collection was created. None = chosen by the service.

    Attributes:
        metric: `cosine` or `dot`.
        index_type: `auto`, `flat`, `ivf`, `hnsw` or `ivf_pq`.
        embedding_application: `none` = documents and queries bring their vectors.
        chunk_max_tokens: Size of a chunk, in tokens of the embedding model.
        bm25_k1: With `bm25_b`, the parameters of BM25.
        language: Of stemming and stop words: `english`, `german`, ... or `none`.
    """

    dimensions: int | None
    embedding_application: str | None
    metric: str
    index_type: str
    num_lists: int | None
    num_probes: int | None
    hnsw_m: int | None
    hnsw_ef_construction: int | None
    hnsw_ef_search: int | None
    pq_num_subvectors: int | None
    chunk_max_tokens: int | None
    chunk_overlap_tokens: int | None
    bm25_k1: float | None
    bm25_b: float | None
    language: str | None


@dataclass(frozen=True, slots=True)
class MetadataField:
    """A field that some document has. `types`: `string`, `number`, `bool`, `string_list`."""

    name: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of documents, as it is on the replica that answered."""

    name: str
    title: str
    config: CollectionConfig
    metadata: Mapping[str, str]
    created_at: datetime
    last_write_at: datetime
    num_documents: int
    num_chunks: int
    num_segments: int
    index_generation: int
    memory_bytes: int
    fields: tuple[MetadataField, ...]


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What became of one document.

    Attributes:
        error: Why nothing was written, where `status` is `failed`.
        consistency_token: A read that brings it sees this write.
        num_done: Documents of the call answered so far, this one included.
    """

    document_id: str
    status: UpsertStatus
    error: OrreryError | None
    num_chunks: int
    consistency_token: str
    num_done: int
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """What became of all documents of a call, in the order in which they were answered."""

    results: tuple[UpsertResult, ...]
    consistency_token: str

    @property
    def failed(self) -> tuple[UpsertResult, ...]:
        """Those of which nothing was written."""
        return tuple(result for result in self.results if result.status == "failed")

    def count(self, status: UpsertStatus) -> int:
        """How many documents had this outcome."""
        return sum(result.status == status for result in self.results)


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """How many documents were removed; ids that were not there are not counted."""

    num_deleted: int
    consistency_token: str
    timing: Timing


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, or a picture.

    Attributes:
        id: `<document id>#<ordinal>`.
        title_path: Headings that it stands under, outermost first.
        start: With `end`, the characters of the document's text that `text` is.
        line_start: With `line_end`, lines of the file from 1; None = the format has none.
        page: Page of the file from 1; None = the format has none.
        file_name: Of the document; empty = it was not a file.
        metadata: The document's and its own.
        vector: Where asked for.
        media_type: Of the document. A picture (`image/png`) has no text, and its `metadata` tell
            `image_width` and `image_height`.
    """

    id: str
    document_id: str
    document_title: str
    ordinal: int
    text: str
    title_path: tuple[str, ...]
    start: int
    end: int
    line_start: int | None
    line_end: int | None
    page: int | None
    file_name: str
    metadata: Metadata
    vector: tuple[float, ...] | None
    media_type: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document of a collection. `chunks` are there where asked for."""

    id: str
    title: str
    file_name: str
    media_type: str
    metadata: Metadata
    num_chunks: int
    num_bytes: int
    written_at: datetime
    content_hash: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Attributes:
        score: What the hits are ordered by.
        dense_score: Similarity of the vectors, where the query has one.
        sparse_score: BM25, where the chunk was found by words.
        dense_rank: From 1; None = not among that ranking's candidates.
    """

    chunk: Chunk
    score: float
    dense_score: float | None
    sparse_score: float | None
    dense_rank: int | None
    sparse_rank: int | None
    rerank_score: float | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits of one search, best first. `timeline` is there where asked for."""

    request_id: str
    hits: tuple[Hit, ...]
    index_generation: int
    usage: Usage
    timing: Timing
    timeline: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchBatchResult:
    """Many searches, in their order: the hits, or the error that this search ended with."""

    request_id: str
    results: tuple[tuple[Hit, ...] | OrreryError, ...]
    index_generation: int
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot that was written. It holds the log up to `log_position`."""

    log_position: str
    num_collections: int
    num_chunks: int
    num_bytes: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class RetrievalLoad:
    """What one replica of the retrieval service is doing, and how far it has read the log.

    `log_available` = writes are possible. `snapshot_position` is empty where there is none.
    """

    num_running: int
    num_waiting_searches: int
    num_collections: int
    num_documents: int
    num_chunks: int
    applied_position: str
    log_position: str
    log_available: bool
    snapshot_position: str
    resident_bytes: int
    num_searches_done: int
    process_id: int
