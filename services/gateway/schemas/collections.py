"""`/v1/collections`: requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.schemas.base import (
    CollectionName,
    ConsistencyToken,
    Float,
    QueryModel,
    StrictModel,
    UInt32,
)
from services.gateway.schemas.filters import StringMetadata

__all__ = [
    "Collection",
    "CollectionDeleted",
    "CollectionList",
    "CreateCollectionRequest",
    "PageQuery",
    "Snapshot",
    "UpdateCollectionRequest",
]


class IndexInput(StrictModel):
    """How vectors are indexed; what is unset is chosen from their number."""

    type: Literal["auto", "flat", "ivf", "hnsw", "ivf_pq"] | None = Field(
        None, description="`auto`, the default: exact while small, then HNSW."
    )
    num_lists: UInt32 | None = Field(None, description="IVF: cells.")
    num_probes: UInt32 | None = Field(None, description="IVF: cells searched.")
    hnsw_m: UInt32 | None = Field(None, description="HNSW: links per vector.")
    hnsw_ef_construction: UInt32 | None = None
    hnsw_ef_search: UInt32 | None = None
    pq_num_subvectors: UInt32 | None = Field(None, description="PQ: divides the dimensions.")


class ChunkingInput(StrictModel):
    """How documents are cut, in tokens of the embedding model."""

    max_tokens: UInt32 | None = Field(None, description="Default 200.")
    overlap_tokens: UInt32 | None = Field(None, description="Default 32.")


class SparseInput(StrictModel):
    """BM25."""

    k1: Float | None = Field(None, description="Default 1.2.")
    b: Float | None = Field(None, description="Default 0.75.")
    language: str | None = Field(None, description="`english`, the default, `german`, ..., `none`.")


class CollectionConfigInput(StrictModel):
    """What a collection is created with and keeps."""

    dimensions: UInt32 | None = Field(
        None, description="Default: the embedding model's. Required where there is none."
    )
    embedding_application: str | None = Field(
        None,
        description="Default: the service's. `none`: documents and queries bring their vectors.",
    )
    metric: Literal["cosine", "dot"] | None = Field(None, description="Default `cosine`.")
    index: IndexInput | None = None
    chunking: ChunkingInput | None = None
    sparse: SparseInput | None = None


class CreateCollectionRequest(StrictModel):
    """Body of `POST /v1/collections`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "docs", "title": "The manual"}]}
    )

    name: CollectionName = Field(
        description="1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit."
    )
    title: str | None = None
    config: CollectionConfigInput | None = None
    metadata: StringMetadata | None = None
    exist_ok: bool | None = Field(
        None, description="One of that name and config is returned instead of refused."
    )


class UpdateCollectionRequest(StrictModel):
    """Body of `PATCH /v1/collections/{name}`: what is unset stays."""

    title: str | None = None
    metadata: StringMetadata | None = Field(None, description="Replaces all of it.")


class PageQuery(QueryModel):
    """A page of a list."""

    page_size: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Default 100, at most 1000."
    )
    page_token: str = Field("", description="`next_page_token` of the page before.")
    consistency_token: ConsistencyToken | None = None


class MetadataField(BaseModel):
    name: str
    types: list[Literal["string", "number", "bool", "string_list"]]


class Index(BaseModel):
    type: Literal["auto", "flat", "ivf", "hnsw", "ivf_pq"]
    num_lists: int | None = None
    num_probes: int | None = None
    hnsw_m: int | None = None
    hnsw_ef_construction: int | None = None
    hnsw_ef_search: int | None = None
    pq_num_subvectors: int | None = None


class Chunking(BaseModel):
    max_tokens: int | None = None
    overlap_tokens: int | None = None


class Sparse(BaseModel):
    k1: float | None = None
    b: float | None = None
    language: str | None = None


class CollectionConfig(BaseModel):
    dimensions: int | None = None
    embedding_application: str | None = None
    metric: Literal["cosine", "dot"]
    index: Index
    chunking: Chunking
    sparse: Sparse


class Collection(BaseModel):
    name: str
    object: Literal["collection"]
    title: str
    config: CollectionConfig
    metadata: dict[str, str]
    created_at: int = Field(description="In seconds since the Unix epoch.")
    last_write_at: int | None
    num_documents: int
    num_chunks: int
    num_segments: int
    index_generation: int = Field(description="Grows with every change that searches can see.")
    memory_bytes: int
    fields: list[MetadataField] = Field(description="What the documents' metadata has.")
    consistency_token: str | None = Field(None, description="Of a write.")


class CollectionList(BaseModel):
    object: Literal["list"]
    data: list[Collection]
    next_page_token: str | None


class CollectionDeleted(BaseModel):
    name: str
    object: Literal["collection.deleted"]
    deleted: Literal[True]
    consistency_token: str


class Snapshot(BaseModel):
    object: Literal["snapshot"]
    log_position: str = Field(description="Up to where in the log it holds everything.")
    num_collections: int
    num_chunks: int
    num_bytes: int
