"""Documents as clients send them: what they hold, what is refused unread, when two are the same.

Knows nothing of how they are read, embedded or kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from services.retrieval.checks import check_document_id, check_label, check_metadata
from services.retrieval.config import RequestLimits
from services.retrieval.types import Metadata
from services.runtime.errors import InvalidRequest

__all__ = [
    "Content",
    "OwnChunk",
    "RawDocument",
    "RawFile",
    "check_document",
    "check_num_chunks",
    "chunk_ends",
    "content_hash",
    "kind_of_content",
]

# Grows when the same document would be read or cut otherwise: then it is not unchanged.
_HASHED_AS = b"orrery document 1"
_MAX_OFFSET = 2**32 - 1  # what the contract can say


@dataclass(frozen=True, slots=True, eq=False)
class RawFile:
    """A file as it is. `name` never touches a file system."""

    data: bytes
    name: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class OwnChunk:
    """A chunk that the client made; `start` None = right after the one before it."""

    text: str
    vector: npt.NDArray[np.float32] | None = None
    start: int | None = None
    metadata: Metadata = field(default_factory=dict)


Content: TypeAlias = RawFile | str | tuple[OwnChunk, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RawDocument:
    """A document as a client sent it."""

    id: str
    title: str
    content: Content
    metadata: Metadata

    @property
    def num_bytes(self) -> int:
        """Of the content, without vectors."""
        match self.content:
            case RawFile(data=data):
                return len(data)
            case str(text):
                return len(text.encode())
            case chunks:
                return sum(len(chunk.text.encode()) for chunk in chunks)


def check_document(raw: RawDocument, limits: RequestLimits) -> None:
    """Raises `InvalidRequest` for what can be seen without reading the document."""
    check_document_id(raw.id, "document.id")
    check_label(raw.title, "document.title")
    check_metadata(raw.metadata, "document.metadata")
    where = f"document.{kind_of_content(raw.content)}"
    if raw.num_bytes > limits.max_document_bytes:
        raise InvalidRequest(
            f"{where}: expected at most {limits.max_document_bytes} bytes, got {raw.num_bytes}",
            field=where,
        )
    if isinstance(raw.content, RawFile):
        check_label(raw.content.name, "document.file.name")
        check_label(raw.content.media_type, "document.file.media_type")
    elif not raw.content or raw.num_bytes == 0:
        raise InvalidRequest(f"{where}: it is empty", field=where)
    elif isinstance(raw.content, tuple):
        check_num_chunks(len(raw.content), limits, where)
        _check_chunks(raw.content, limits, where)


def content_hash(raw: RawDocument) -> str:
    """Equal for documents that would be kept alike: content, name, title and metadata agree."""
    digest = hashlib.sha256(_HASHED_AS)
    named = {
        "kind": kind_of_content(raw.content),
        "title": raw.title,
        "metadata": dict(raw.metadata),
    }
    match raw.content:
        case RawFile(data, name, media_type):
            _feed(digest, orjson.dumps({**named, "name": name, "type": media_type}, option=_SORTED))
            digest.update(data)
        case str(text):
            _feed(digest, orjson.dumps(named, option=_SORTED))
            digest.update(text.encode())
        case chunks:
            _feed(digest, orjson.dumps(named, option=_SORTED))
            for chunk in chunks:
                rest = {"start": chunk.start, "metadata": dict(chunk.metadata)}
                _feed(digest, orjson.dumps(rest, option=_SORTED))
                _feed(digest, chunk.text.encode())
                _feed(digest, b"" if chunk.vector is None else chunk.vector.tobytes())
    return digest.hexdigest()


_SORTED = orjson.OPT_SORT_KEYS


def _feed(digest: hashlib._Hash, part: bytes) -> None:
    """With its length before it, so that two parts never look like two others."""
    digest.update(len(part).to_bytes(8, "big"))
    digest.update(part)


def kind_of_content(content: Content) -> str:
    """The field of the contract's `Document` that it came in."""
    match content:
        case RawFile():
            return "file"
        case str():
            return "text"
        case _:
            return "chunks"


def check_num_chunks(num_chunks: int, limits: RequestLimits, where: str) -> None:
    """Raises `InvalidRequest` for a document of too many pieces."""
    if num_chunks > limits.max_chunks:
        raise InvalidRequest(
            f"{where}: expected at most {limits.max_chunks} chunks, got {num_chunks}", field=where
        )


def _check_chunks(chunks: tuple[OwnChunk, ...], limits: RequestLimits, where: str) -> None:
    for index, (chunk, end) in enumerate(zip(chunks, chunk_ends(chunks), strict=True)):
        check_metadata(chunk.metadata, f"{where}[{index}].metadata")
        num_bytes = len(chunk.text.encode())
        if num_bytes > limits.max_chunk_bytes:
            raise InvalidRequest(
                f"{where}[{index}].text: expected at most {limits.max_chunk_bytes} bytes, "
                f"got {num_bytes}",
                field=f"{where}[{index}].text",
            )
        if end > _MAX_OFFSET:
            raise InvalidRequest(
                f"{where}[{index}].start: the chunk would end at {end}, beyond {_MAX_OFFSET}",
                field=f"{where}[{index}].start",
            )


def chunk_ends(chunks: tuple[OwnChunk, ...]) -> Iterator[int]:
    """Where each chunk ends; one without a start begins where the one before it ends."""
    position = 0
    for chunk in chunks:
        position = (position if chunk.start is None else chunk.start) + len(chunk.text)
        yield position
