"""From what a client sent to what the log and the index keep: read, cut, embedded.

    RawDocument -> content_hash -> [unchanged: nothing more] -> chunks -> vectors -> IndexedDocument

Files are read in processes of their own (`readers.py`), embedded by another service
(`embedder.py`). Knows nothing of Redis, of the index, or of protobuf.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from services.retrieval.checks import check_document_id, check_label, check_metadata
from services.retrieval.config import RequestLimits
from services.retrieval.embedder import Embedder, Purpose
from services.retrieval.index.text import chunk_search_text
from services.retrieval.readers import ReadDocument, Reader, ReadJob
from services.retrieval.types import (
    Chunk,
    CollectionConfig,
    DocumentInfo,
    IndexedDocument,
    Metadata,
    Vectors,
)
from services.retrieval.vectors import checked_vector, for_metric
from services.runtime.errors import InvalidRequest
from services.runtime.peer import Caller

__all__ = [
    "DocumentPipeline",
    "OwnChunk",
    "Prepared",
    "RawDocument",
    "RawFile",
    "check_document",
    "content_hash",
]

# Grows when the same document would be read or cut otherwise: then it is not unchanged.
_HASHED_AS = b"orrery document 1"
# Checking the vectors of so many would hold up the event loop.
_CHECK_IN_THREAD_CHUNKS = 256
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


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A document that can go into the log, and the tokens that its embedding took."""

    document: IndexedDocument
    num_tokens: int


def check_document(raw: RawDocument, limits: RequestLimits) -> None:
    """Raises `InvalidRequest` for what can be seen without reading the document."""
    check_document_id(raw.id, "document.id")
    check_label(raw.title, "document.title")
    check_metadata(raw.metadata, "document.metadata")
    where = f"document.{_kind(raw.content)}"
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
        _check_num_chunks(len(raw.content), limits, where)
        _check_chunks(raw.content, limits, where)


def content_hash(raw: RawDocument) -> str:
    """Equal for documents that would be kept alike: content, name, title and metadata agree."""
    digest = hashlib.sha256(_HASHED_AS)
    named = {"kind": _kind(raw.content), "title": raw.title, "metadata": dict(raw.metadata)}
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


def _kind(content: Content) -> str:
    match content:
        case RawFile():
            return "file"
        case str():
            return "text"
        case _:
            return "chunks"


def _check_num_chunks(num_chunks: int, limits: RequestLimits, where: str) -> None:
    if num_chunks > limits.max_chunks:
        raise InvalidRequest(
            f"{where}: expected at most {limits.max_chunks} chunks, got {num_chunks}", field=where
        )


def _check_chunks(chunks: tuple[OwnChunk, ...], limits: RequestLimits, where: str) -> None:
    for index, (chunk, end) in enumerate(zip(chunks, _ends(chunks), strict=True)):
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


def _ends(chunks: tuple[OwnChunk, ...]) -> Iterator[int]:
    """Where each chunk ends; one without a start begins where the one before it ends."""
    position = 0
    for chunk in chunks:
        position = (position if chunk.start is None else chunk.start) + len(chunk.text)
        yield position


class DocumentPipeline:
    """Makes documents searchable. `tokenizers`: the folder for each embedding application."""

    def __init__(
        self,
        reader: Reader,
        embedder: Embedder,
        tokenizers: Mapping[str, str],
        limits: RequestLimits,
    ) -> None:
        self._reader = reader
        self._embedder = embedder
        self._tokenizers = tokenizers
        self._limits = limits

    async def prepare(
        self, raw: RawDocument, hashed: str, config: CollectionConfig, caller: Caller
    ) -> Prepared:
        """A checked document, read and embedded. Raises `OrreryError`; cancelling stops it."""
        where = f"document.{_kind(raw.content)}"
        if isinstance(raw.content, tuple):
            read = ReadDocument("", "", {}, _own_chunks(raw.content))
        else:
            read = await self._read(raw.content, config, where)
        if not read.chunks:
            raise InvalidRequest(f"{where}: it holds no text", field=where)
        _check_num_chunks(len(read.chunks), self._limits, where)
        info = _info(raw, read, hashed)
        check_metadata(info.metadata, "document.metadata")
        if config.embedding_application is None:
            vectors, num_tokens = await _own_vectors(raw.content, config), 0
        else:
            vectors, num_tokens = await self._embed(raw, read, info, config, caller)
        return Prepared(IndexedDocument(info, read.chunks, vectors), num_tokens)

    async def _read(
        self, content: RawFile | str, config: CollectionConfig, where: str
    ) -> ReadDocument:
        application = config.embedding_application
        if application is None:
            raise InvalidRequest(
                f"{where}: this collection has no embedding application; send chunks with vectors",
                field=where,
            )
        folder = self._tokenizers.get(application)
        if folder is None:
            raise InvalidRequest(
                f"{where}: this service no longer knows the collection's embedding application "
                f"{application!r}",
                field=where,
            )
        if isinstance(content, str):
            content = RawFile(content.encode(), "", "text/plain")
        job = ReadJob(content.data, content.name, content.media_type, config.chunking, folder)
        try:
            return await self._reader.read(job)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error.message}", field=where) from error

    async def _embed(
        self,
        raw: RawDocument,
        read: ReadDocument,
        info: DocumentInfo,
        config: CollectionConfig,
        caller: Caller,
    ) -> tuple[Vectors, int]:
        _check_embeddable(raw.content)
        assert config.embedding_application is not None
        texts = [chunk_search_text(chunk, info) for chunk in read.chunks]
        embedded = await self._embedder.embed(
            config.embedding_application, texts, Purpose.PASSAGE, config.dimensions, caller
        )
        return for_metric(embedded.vectors, config.metric), embedded.num_tokens


def _info(raw: RawDocument, read: ReadDocument, hashed: str) -> DocumentInfo:
    file_name = raw.content.name if isinstance(raw.content, RawFile) else ""
    return DocumentInfo(
        id=raw.id,
        title=raw.title or read.title or file_name,
        file_name=file_name,
        media_type=read.media_type,
        content_hash=hashed,
        num_bytes=raw.num_bytes,
        written_at_ms=time.time_ns() // 1_000_000,
        metadata={**read.metadata, **raw.metadata},
    )


def _own_chunks(chunks: tuple[OwnChunk, ...]) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(own.text, end - len(own.text), end, metadata=own.metadata)
        for own, end in zip(chunks, _ends(chunks), strict=True)
    )


async def _own_vectors(content: Content, config: CollectionConfig) -> Vectors:
    assert isinstance(content, tuple)  # anything else was refused when it should be read
    if len(content) > _CHECK_IN_THREAD_CHUNKS:
        return await asyncio.to_thread(_checked_vectors, content, config)
    return _checked_vectors(content, config)


def _checked_vectors(content: tuple[OwnChunk, ...], config: CollectionConfig) -> Vectors:
    vectors = np.empty((len(content), config.dimensions), np.float32)
    for index, chunk in enumerate(content):
        where = f"document.chunks[{index}].vector"
        if chunk.vector is None:
            raise InvalidRequest(
                f"{where}: this collection has no embedding application: every chunk brings its "
                "vector",
                field=where,
            )
        vectors[index] = checked_vector(chunk.vector, config.dimensions, config.metric, where)
    return vectors


def _check_embeddable(content: Content) -> None:
    if not isinstance(content, tuple):
        return
    for index, chunk in enumerate(content):
        where = f"document.chunks[{index}]"
        if chunk.vector is not None:
            raise InvalidRequest(
                f"{where}.vector: this collection's embedding application makes the vectors",
                field=f"{where}.vector",
            )
        if not chunk.text.strip():
            raise InvalidRequest(f"{where}.text: it is blank", field=f"{where}.text")
