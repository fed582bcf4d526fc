"""Documents of a collection: what goes in, what is listed, what is removed."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from services.gateway.schemas.base import (
    ConsistencyToken,
    Float,
    QueryModel,
    StrictModel,
    UInt32,
    refuse,
)
from services.gateway.schemas.collections import PageQuery
from services.gateway.schemas.filters import Metadata, MetadataFilter
from services.gateway.schemas.search import ChunkFields

__all__ = [
    "DeleteDocumentsRequest",
    "DocumentDeleted",
    "DocumentInput",
    "DocumentList",
    "DocumentQuery",
    "DocumentsDeleted",
    "ListDocumentsQuery",
    "StoredDocument",
    "UpsertAnswer",
    "UpsertForm",
    "UpsertRequest",
]


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise refuse("invalid_type", "expected a string in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("invalid_value", "expected a string in base64") from None


_Base64 = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


class FileInput(StrictModel):
    """A file as it is: the service reads it by its type."""

    data: _Base64
    name: str = Field("", description="Its ending says what it is where `media_type` does not.")
    media_type: str = ""


class ChunkInput(StrictModel):
    """A piece that you made yourself."""

    text: str
    vector: list[Float] | None = Field(
        None, description="Needed in a collection without embedding model, refused in others."
    )
    start: UInt32 | None = Field(None, description="In your source, in characters.")
    metadata: Metadata | None = None


class DocumentInput(StrictModel):
    """A document: exactly one of `text`, `file` and `chunks`."""

    id: Annotated[str, Field(min_length=1)] = Field(
        description="Yours, 1 to 512 bytes. A document of that id is replaced."
    )
    title: str | None = Field(None, description="Default: what the file says, or its name.")
    text: str | None = None
    file: FileInput | None = None
    chunks: Annotated[list[ChunkInput], Field(min_length=1)] | None = None
    metadata: Metadata | None = Field(None, description="Can be filtered by.")

    @model_validator(mode="after")
    def _one_content(self) -> DocumentInput:
        given = [value for value in (self.text, self.file, self.chunks) if value is not None]
        if len(given) != 1:
            raise refuse("invalid_value", "expected exactly one of text, file and chunks")
        return self


class UpsertRequest(StrictModel):
    """Body of `POST /v1/collections/{name}/documents`, as JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "documents": [
                        {
                            "id": "lamp.md",
                            "text": "# Lamps\nThe keeper ...",
                            "metadata": {"year": 9},
                        }
                    ]
                }
            ]
        }
    )

    documents: Annotated[list[DocumentInput], Field(min_length=1)]


def _parsed(value: Any) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise refuse("invalid_value", "expected JSON") from None


class UpsertForm(BaseModel):
    """The fields beside `file` of the same as a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field("", description="Default: the file's name.")
    title: str = ""
    metadata: Annotated[Metadata, BeforeValidator(_parsed)] | None = None


class ItemError(BaseModel):
    code: str
    message: str
    param: str | None


class UpsertedDocument(BaseModel):
    id: str
    object: Literal["document.upserted"]
    status: Literal["added", "replaced", "unchanged", "failed"]
    error: ItemError | None
    num_chunks: int
    embedding_tokens: int = Field(description="What it cost to embed.")


class UpsertAnswer(BaseModel):
    object: Literal["list"]
    data: list[UpsertedDocument] = Field(description="In the order of the documents.")
    counts: dict[str, int] = Field(description="Documents by status.")
    consistency_token: str | None


class DeleteDocumentsRequest(StrictModel):
    """Body of `POST /v1/collections/{name}/delete`: one of the two."""

    document_ids: Annotated[list[str], Field(min_length=1)] | None = None
    filter: MetadataFilter | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> DeleteDocumentsRequest:
        if (self.document_ids is None) == (self.filter is None):
            raise refuse("invalid_value", "expected either document_ids or filter")
        return self


class DocumentsDeleted(BaseModel):
    object: Literal["documents.deleted"]
    num_deleted: int = Field(description="Those that were not there are not counted.")
    consistency_token: str


class DocumentDeleted(BaseModel):
    id: str
    object: Literal["document.deleted"]
    deleted: Literal[True]
    consistency_token: str


class ListDocumentsQuery(PageQuery):
    """A page of a collection's documents."""

    # Text until it is parsed: FastAPI reads query strings only as plain types.
    filter: str | None = Field(None, description="A filter as JSON.")


class DocumentQuery(QueryModel):
    """What of a document is wanted."""

    include_chunks: bool = False
    include_vectors: bool = Field(False, description="Of the chunks.")
    consistency_token: ConsistencyToken | None = None


class StoredDocument(BaseModel):
    id: str
    object: Literal["document"]
    title: str
    file_name: str
    media_type: str
    metadata: dict[str, str | float | bool | list[str]]
    num_chunks: int
    num_bytes: int
    written_at: int
    content_hash: str
    chunks: list[ChunkFields] | None = None


class DocumentList(BaseModel):
    object: Literal["list"]
    data: list[StoredDocument] = Field(description="By id.")
    next_page_token: str | None
    index_generation: int
