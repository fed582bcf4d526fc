"""What stands in the log: the changes of collections and documents, and how they become bytes.

An entry has a kind, the id of its collection, a header (compact JSON) and a body (the vectors of a
document, raw little-endian float32, row by row). Knows nothing of Redis.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import orjson
from pydantic import ValidationError

from services.retrieval.log.position import Position
from services.retrieval.types import (
    Chunk,
    CollectionConfig,
    DocumentInfo,
    IndexedDocument,
    Metadata,
    MetadataValue,
)
from services.runtime.errors import InvalidRequest

__all__ = [
    "Change",
    "CollectionCreated",
    "CollectionDeleted",
    "CollectionUpdated",
    "DocumentPut",
    "DocumentsRemoved",
    "Encoded",
    "Kind",
    "LogEntry",
    "UnreadableEntry",
    "decode",
    "encode",
]

_FLOATS = np.dtype("<f4")


class UnreadableEntry(ValueError):
    """An entry is not what this version writes: it is damaged, or a newer one wrote it."""


class Kind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    PUT = "put"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class CollectionCreated:
    name: str
    title: str
    config: CollectionConfig
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CollectionUpdated:
    """None leaves it as it is."""

    title: str | None
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class CollectionDeleted:
    pass


@dataclass(frozen=True, slots=True)
class DocumentPut:
    document: IndexedDocument


@dataclass(frozen=True, slots=True)
class DocumentsRemoved:
    document_ids: tuple[str, ...]


Change: TypeAlias = (
    CollectionCreated | CollectionUpdated | CollectionDeleted | DocumentPut | DocumentsRemoved
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A change as bytes."""

    kind: Kind
    header: bytes
    body: bytes = b""

    @property
    def num_bytes(self) -> int:
        return len(self.header) + len(self.body)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry as it was read. `previous` is the position of the entry before it, as appended."""

    position: Position
    previous: Position
    collection_id: str
    encoded: Encoded

    @property
    def num_bytes(self) -> int:
        return self.encoded.num_bytes


def encode(change: Change) -> Encoded:
    """Raises `InvalidRequest` where a document's numbers are not finite or its vectors misfit."""
    match change:
        case CollectionCreated():
            return Encoded(
                Kind.CREATE,
                _dumps(
                    {
                        "name": change.name,
                        "title": change.title,
                        "config": change.config.model_dump(mode="json"),
                        "metadata": dict(change.metadata),
                    }
                ),
            )
        case CollectionUpdated():
            metadata = None if change.metadata is None else dict(change.metadata)
            return Encoded(Kind.UPDATE, _dumps({"title": change.title, "metadata": metadata}))
        case CollectionDeleted():
            return Encoded(Kind.DELETE, b"{}")
        case DocumentPut():
            return _encode_document(change.document)
        case DocumentsRemoved():
            return Encoded(Kind.REMOVE, _dumps({"ids": list(change.document_ids)}))


def decode(encoded: Encoded) -> Change:
    """The change that `encode` was given. Raises `UnreadableEntry`."""
    try:
        header = _loads(encoded.header)
        match encoded.kind:
            case Kind.CREATE:
                config = CollectionConfig.model_validate(header["config"])
                return CollectionCreated(
                    header["name"], header["title"], config, header["metadata"]
                )
            case Kind.UPDATE:
                return CollectionUpdated(header["title"], header["metadata"])
            case Kind.DELETE:
                return CollectionDeleted()
            case Kind.PUT:
                return DocumentPut(_decode_document(header, encoded.body))
            case Kind.REMOVE:
                return DocumentsRemoved(tuple(header["ids"]))
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UnreadableEntry(f"{encoded.kind.value}: {type(error).__name__}") from error


# --- documents --------------------------------------------------------------------------------


def _encode_document(document: IndexedDocument) -> Encoded:
    info, vectors = document.info, document.vectors
    if vectors.ndim != 2 or len(vectors) != len(document.chunks):
        raise InvalidRequest(
            f"vector: {len(document.chunks)} chunks with vectors of shape {vectors.shape}",
            field="vector",
        )
    if not np.isfinite(vectors).all():
        raise InvalidRequest("vector: every number must be finite", field="vector")
    header = {
        "id": info.id,
        "title": info.title,
        "file_name": info.file_name,
        "media_type": info.media_type,
        "content_hash": info.content_hash,
        "num_bytes": info.num_bytes,
        "written_at_ms": info.written_at_ms,
        "metadata": _metadata_out(info.metadata),
        "dimensions": vectors.shape[1],
        "chunks": [_chunk_out(chunk) for chunk in document.chunks],
    }
    body = np.ascontiguousarray(vectors, dtype=_FLOATS).tobytes()
    return Encoded(Kind.PUT, _dumps(header), body)


def _decode_document(header: dict[str, Any], body: bytes) -> IndexedDocument:
    chunks = tuple(_chunk_in(values) for values in header["chunks"])
    vectors = np.frombuffer(body, dtype=_FLOATS).reshape(len(chunks), header["dimensions"])
    info = DocumentInfo(
        id=header["id"],
        title=header["title"],
        file_name=header["file_name"],
        media_type=header["media_type"],
        content_hash=header["content_hash"],
        num_bytes=header["num_bytes"],
        written_at_ms=header["written_at_ms"],
        metadata=_metadata_in(header["metadata"]),
    )
    return IndexedDocument(info, chunks, vectors)


def _chunk_out(chunk: Chunk) -> list[object]:
    # A list: the names of the fields would be most of a short chunk's bytes.
    return [
        chunk.text,
        chunk.start,
        chunk.end,
        chunk.title_path,
        chunk.line_start,
        chunk.line_end,
        chunk.page,
        _metadata_out(chunk.metadata),
    ]


def _chunk_in(values: Sequence[Any]) -> Chunk:
    text, start, end, title_path, line_start, line_end, page, metadata = values
    return Chunk(
        text, start, end, tuple(title_path), line_start, line_end, page, _metadata_in(metadata)
    )


def _metadata_out(metadata: Metadata) -> dict[str, object]:
    return {name: _value_out(name, value) for name, value in metadata.items()}


def _value_out(name: str, value: MetadataValue) -> object:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, tuple):
        return list(value)
    if not math.isfinite(value):  # JSON has no such numbers
        raise InvalidRequest(f"metadata.{name}: expected a finite number", field="metadata")
    return float(value)


def _metadata_in(values: Mapping[str, Any]) -> Metadata:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


# --- JSON -------------------------------------------------------------------------------------


def _dumps(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # A lone surrogate, which broken files contain: the standard library escapes it.
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _loads(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = json.loads(data)
    if not isinstance(value, dict):
        raise TypeError("the header is no object")
    return value
