"""`/v1/vector_stores` and what lies below it, in OpenAI's shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from services.gateway.schemas.base import Float, StrictModel, UInt32, Unsupported, refuse
from services.gateway.schemas.files import CursorQuery
from services.gateway.schemas.filters import Attributes, MetadataFilter, StringMetadata

__all__ = [
    "MAX_BATCH_FILES",
    "AttachFileRequest",
    "ChunkingStrategy",
    "CreateBatchRequest",
    "CreateVectorStoreRequest",
    "FileContentPage",
    "SearchPage",
    "SearchRequest",
    "StaticChunking",
    "StoreFileQuery",
    "UpdateFileRequest",
    "UpdateVectorStoreRequest",
    "VectorStore",
    "VectorStoreDeleted",
    "VectorStoreFile",
    "VectorStoreFileBatch",
    "VectorStoreFileDeleted",
    "VectorStoreFileList",
    "VectorStoreList",
]

# The batch's id names its files: with more of them it would not fit into a URL.
MAX_BATCH_FILES = 256

_NO_EXPIRY = "vector stores stay until they are deleted"
_FileIds = Annotated[list[str], Field(max_length=MAX_BATCH_FILES)]


class StaticChunking(StrictModel):
    max_chunk_size_tokens: UInt32
    chunk_overlap_tokens: UInt32


class ChunkingStrategy(StrictModel):
    """`auto`: the service's defaults, or what the vector store was created with."""

    type: Literal["auto", "static"]
    static: StaticChunking | None = None

    @model_validator(mode="after")
    def _static_has_its_numbers(self) -> ChunkingStrategy:
        if (self.type == "static") != (self.static is not None):
            raise refuse("invalid_value", "expected static exactly where type is static")
        return self


class CreateVectorStoreRequest(StrictModel):
    """Body of `POST /v1/vector_stores`."""

    name: str | None = None
    file_ids: _FileIds | None = None
    metadata: StringMetadata | None = None
    chunking_strategy: ChunkingStrategy | None = Field(
        None, description="Of all files of this vector store, now and later."
    )
    expires_after: Annotated[Any, Unsupported(_NO_EXPIRY)] = None
    description: Annotated[Any, Unsupported("it is not kept; metadata is", ("",))] = None


class UpdateVectorStoreRequest(StrictModel):
    """Body of `POST /v1/vector_stores/{id}`: what is unset or null stays."""

    name: str | None = None
    metadata: StringMetadata | None = Field(None, description="Replaces all of it.")
    expires_after: Annotated[Any, Unsupported(_NO_EXPIRY)] = None


class HybridSearch(StrictModel):
    """Weights in reciprocal rank fusion."""

    embedding_weight: Float
    text_weight: Float


class RankingOptions(StrictModel):
    ranker: Literal["auto", "none", "cross_encoder", "bi_encoder"] | None = Field(
        None,
        description="`auto` and `none`: hybrid search as it ranks. Beyond OpenAI's: "
        "`cross_encoder` and `bi_encoder` order the candidates anew.",
    )
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Least similarity of a result's vector to the query's."
    )
    hybrid_search: HybridSearch | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SearchRequest(StrictModel):
    """Body of `POST /v1/vector_stores/{id}/search`."""

    query: Annotated[
        list[str],
        Field(min_length=1),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    ]
    filters: MetadataFilter | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = Field(
        None, description="Default 10."
    )
    ranking_options: RankingOptions | None = None
    rewrite_query: Annotated[Any, Unsupported("queries are searched for as they are", (False,))] = (
        None
    )


class AttachFileRequest(StrictModel):
    """Body of `POST /v1/vector_stores/{id}/files`."""

    file_id: Annotated[str, Field(min_length=1)]
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = Field(
        None, description="`auto`, or the vector store's own."
    )


class UpdateFileRequest(StrictModel):
    """Body of `POST /v1/vector_stores/{id}/files/{file_id}`."""

    attributes: Attributes = Field(description="Replaces all of them.")


class CreateBatchRequest(StrictModel):
    """Body of `POST /v1/vector_stores/{id}/file_batches`: `file_ids` or `files`."""

    file_ids: Annotated[_FileIds, Field(min_length=1)] | None = None
    files: (
        Annotated[list[AttachFileRequest], Field(min_length=1, max_length=MAX_BATCH_FILES)] | None
    ) = None
    attributes: Attributes | None = Field(None, description="Of all `file_ids`.")
    chunking_strategy: ChunkingStrategy | None = Field(
        None, description="`auto`, or the vector store's own."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> CreateBatchRequest:
        if (self.file_ids is None) == (self.files is None):
            raise refuse("invalid_value", "expected either file_ids or files")
        if self.files is not None and (self.attributes or self.chunking_strategy):
            raise refuse(
                "invalid_value",
                "attributes and chunking_strategy: with files, each entry has its own",
            )
        return self

    @property
    def entries(self) -> list[AttachFileRequest]:
        """Each file with what goes for it."""
        if self.files is not None:
            return self.files
        assert self.file_ids is not None
        return [
            AttachFileRequest(
                file_id=file_id,
                attributes=self.attributes,
                chunking_strategy=self.chunking_strategy,
            )
            for file_id in self.file_ids
        ]


class StoreFileQuery(CursorQuery):
    """A page of a vector store's files."""

    filter: Literal["in_progress", "completed", "failed", "cancelled"] | None = Field(
        None, description="By status."
    )


class FileCounts(BaseModel):
    in_progress: int
    completed: int
    failed: int
    cancelled: int = Field(description="Of a batch: files that are no longer there.")
    total: int


class VectorStore(BaseModel):
    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["completed"]
    expires_after: None
    expires_at: None
    last_active_at: int | None = Field(description="When it was last written to.")
    metadata: dict[str, str]


class VectorStoreList(BaseModel):
    object: Literal["list"]
    data: list[VectorStore]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreDeleted(BaseModel):
    id: str
    object: Literal["vector_store.deleted"]
    deleted: Literal[True]


class SearchContent(BaseModel):
    type: Literal["text"]
    text: str


class SearchResult(BaseModel):
    file_id: str
    filename: str
    score: float = Field(description="Similarity, which `score_threshold` is compared with.")
    attributes: dict[str, str | float | bool | list[str]]
    content: list[SearchContent]


class SearchPage(BaseModel):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult] = Field(description="The most relevant first.")
    has_more: Literal[False]
    next_page: None


class LastError(BaseModel):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class VectorStoreFile(BaseModel):
    id: str
    object: Literal["vector_store.file"]
    created_at: int
    usage_bytes: int
    vector_store_id: str
    status: Literal["completed", "failed"]
    last_error: LastError | None
    attributes: dict[str, str | float | bool | list[str]]
    chunking_strategy: ChunkingStrategy


class VectorStoreFileList(BaseModel):
    object: Literal["list"]
    data: list[VectorStoreFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreFileDeleted(BaseModel):
    id: str
    object: Literal["vector_store.file.deleted"]
    deleted: Literal[True]


class FileContentPage(BaseModel):
    object: Literal["vector_store.file_content.page"]
    data: list[SearchContent] = Field(description="One piece for each chunk, without overlaps.")
    has_more: Literal[False]
    next_page: None


class VectorStoreFileBatch(BaseModel):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["completed"]
    file_counts: FileCounts
