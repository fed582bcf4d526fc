"""The words of the retrieval service: documents, chunks, collections, filters, queries, hits.

Plain values, shared by reading files in (`ingest/`), the log and its replicas (`log/`), and the
index (`index/`). Knows nothing of protobuf, Redis or FAISS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AllOf",
    "AnyOf",
    "Chunk",
    "ChunkingConfig",
    "CollectionConfig",
    "Comparison",
    "DocumentInfo",
    "Filter",
    "Hit",
    "IndexConfig",
    "IndexType",
    "IndexedDocument",
    "Metadata",
    "MetadataValue",
    "Metric",
    "Not",
    "Operator",
    "Picture",
    "Query",
    "SearchMode",
    "SearchOptions",
    "SparseConfig",
    "UpsertStatus",
    "Vectors",
]

# A tuple is a list of strings. Numbers are doubles: whole numbers are exact up to 2**53.
MetadataValue: TypeAlias = str | float | bool | tuple[str, ...]
Metadata: TypeAlias = Mapping[str, MetadataValue]
Vectors: TypeAlias = npt.NDArray[np.float32]


# --- collections ------------------------------------------------------------------------------


class Metric(StrEnum):
    COSINE = "cosine"
    DOT = "dot"


class IndexType(StrEnum):
    AUTO = "auto"  # flat while small, then HNSW
    FLAT = "flat"
    IVF = "ivf"
    HNSW = "hnsw"
    IVF_PQ = "ivf_pq"


class IndexConfig(BaseModel):
    """How a collection's vectors are indexed. None = chosen from the number of vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: IndexType = IndexType.AUTO
    num_lists: int | None = Field(default=None, ge=1, le=65536)
    num_probes: int = Field(default=16, ge=1, le=65536)
    hnsw_m: int = Field(default=32, ge=4, le=128)
    hnsw_ef_construction: int = Field(default=80, ge=8, le=2048)
    hnsw_ef_search: int = Field(default=128, ge=8, le=4096)
    pq_num_subvectors: int | None = Field(default=None, ge=1, le=1024)


class ChunkingConfig(BaseModel):
    """How documents are cut, in tokens of the embedding model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=200, ge=16, le=8192)
    overlap_tokens: int = Field(default=32, ge=0, le=4096)


class SparseConfig(BaseModel):
    """BM25 (Robertson and Zaragoza 2009), in the variant of Lucene."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k1: float = Field(default=1.2, ge=0, le=100)
    b: float = Field(default=0.75, ge=0, le=1)
    language: str = "english"


class CollectionConfig(BaseModel):
    """What a collection is created with and keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(ge=1, le=16384)
    embedding_application: str | None = None  # None: documents and queries bring their vectors
    metric: Metric = Metric.COSINE
    index: IndexConfig = IndexConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    sparse: SparseConfig = SparseConfig()


# --- documents --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: characters `[start, end)` of its text.

    Lines and pages count from 1; 0 = the format has none. `metadata` is the chunk's own, without
    the document's.
    """

    text: str
    start: int
    end: int
    title_path: tuple[str, ...] = ()
    line_start: int = 0
    line_end: int = 0
    page: int = 0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document without its chunks."""

    id: str
    title: str
    file_name: str
    media_type: str
    content_hash: str  # of content, title and metadata: equal = nothing to do
    num_bytes: int  # of what was sent
    written_at_ms: int  # Unix time
    metadata: Metadata


@dataclass(frozen=True, slots=True, eq=False)
class IndexedDocument:
    """A document as the log and the index keep it."""

    info: DocumentInfo
    chunks: tuple[Chunk, ...]
    vectors: Vectors  # [num_chunks, dimensions], of length 1 where the metric is cosine


# --- searching --------------------------------------------------------------------------------


class Operator(StrEnum):
    EQ = "eq"
    NE = "ne"
    IN = "in"
    NOT_IN = "not_in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator values`. EXISTS has no values, IN and NOT_IN have some, the others one."""

    field: str
    operator: Operator
    values: tuple[MetadataValue, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    filter: Filter


Filter: TypeAlias = Comparison | AllOf | AnyOf | Not


class SearchMode(StrEnum):
    HYBRID = "hybrid"
    DENSE = "dense"
    SPARSE = "sparse"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture as a client sent it; `media_type` "" = as the bytes say."""

    data: bytes
    media_type: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for: a text, and a vector `[dimensions]` or a picture that has one; or one of
    these."""

    text: str | None = None
    vector: Vectors | None = None
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search; see `SearchOptions` of the contract. Hashable: equal ones share a batch."""

    mode: SearchMode
    k: int = 10
    filter: Filter | None = None
    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    rrf_k: int = 20
    num_candidates: int = 50
    min_score: float | None = None
    mmr_lambda: float | None = None  # None: no diversity
    max_per_document: int | None = None


@dataclass(slots=True, eq=False)
class Hit:
    """A chunk that was found. `score` is what the hits are ordered by."""

    document: DocumentInfo
    chunk: Chunk
    ordinal: int
    score: float
    dense_score: float | None = None
    sparse_score: float | None = None
    dense_rank: int | None = None
    sparse_rank: int | None = None
    rerank_score: float | None = None
    vector: Vectors | None = None


class UpsertStatus(StrEnum):
    """What became of a document that was sent."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    FAILED = "failed"
