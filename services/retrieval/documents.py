"""From what a client sent to what the log and the index keep: read, cut, embedded.

    RawDocument -> content_hash -> [unchanged: nothing more] -> chunks -> vectors -> IndexedDocument

Files are read in processes of their own (`readers.py`), pictures by their header alone
(`pictures.py`); both are embedded by another service (`embedder.py`). Knows nothing of Redis, of
the index, or of protobuf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from services.retrieval.checks import check_metadata
from services.retrieval.config import RequestLimits
from services.retrieval.embedder import Embedder, Purpose
from services.retrieval.index.text import chunk_search_text
from services.retrieval.pictures import is_picture, naming_the_picture, read_picture
from services.retrieval.raw_documents import (
    Content,
    OwnChunk,
    RawDocument,
    RawFile,
    check_num_chunks,
    chunk_ends,
    kind_of_content,
)
from services.retrieval.readers import ReadDocument, Reader, ReadJob
from services.retrieval.types import (
    Chunk,
    CollectionConfig,
    DocumentInfo,
    IndexedDocument,
    Vectors,
)
from services.retrieval.vectors import checked_vector, for_metric
from services.runtime.errors import InvalidRequest
from services.runtime.peer import Caller

__all__ = ["DocumentPipeline", "Prepared"]

# Checking the vectors of so many would hold up the event loop.
_CHECK_IN_THREAD_CHUNKS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A document that can go into the log, and the tokens that its embedding took."""

    document: IndexedDocument
    num_tokens: int


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
        where = f"document.{kind_of_content(raw.content)}"
        if isinstance(raw.content, tuple):
            read = ReadDocument("", "", {}, _own_chunks(raw.content))
        elif (picture := _picture_of(raw.content)) is not None:
            return await self._prepare_picture(raw, picture, hashed, config, caller)
        else:
            read = await self._read(raw.content, config, where)
        if not read.chunks:
            raise InvalidRequest(f"{where}: it holds no text", field=where)
        check_num_chunks(len(read.chunks), self._limits, where)
        info = _info(raw, read, hashed)
        check_metadata(info.metadata, "document.metadata")
        if config.embedding_application is None:
            vectors, num_tokens = await _own_vectors(raw.content, config), 0
        else:
            vectors, num_tokens = await self._embed(raw, read, info, config, caller)
        return Prepared(IndexedDocument(info, read.chunks, vectors), num_tokens)

    async def _prepare_picture(
        self,
        raw: RawDocument,
        picture: RawFile,
        hashed: str,
        config: CollectionConfig,
        caller: Caller,
    ) -> Prepared:
        application = config.embedding_application
        model = None if application is None else await self._embedder.model(application, caller)
        if application is None or model is None or model.picture_limits is None:
            without = (
                "it has none" if application is None else f"{application!r} embeds texts alone"
            )
            raise InvalidRequest(
                "document.file: a picture needs a collection whose embedding application embeds "
                f"pictures; {without}",
                field="document.file",
            )
        # In a thread: whatever is in a hostile file, the event loop does not wait for it.
        read = await asyncio.to_thread(
            read_picture,
            picture.data,
            picture.media_type,
            model.picture_limits,
            "document.file.data",
        )
        info = _info(raw, read, hashed)
        check_metadata(info.metadata, "document.metadata")
        with naming_the_picture("document.file.data"):
            vectors = await self._embedder.embed_pictures(
                application, [picture.data], config.dimensions, caller, patiently=True
            )
        document = IndexedDocument(info, read.chunks, for_metric(vectors, config.metric))
        return Prepared(document, num_tokens=0)

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


def _picture_of(content: RawFile | str) -> RawFile | None:
    """The content, where it is a picture."""
    if isinstance(content, str):
        return None
    return content if is_picture(content.data, content.name, content.media_type) else None


def _own_chunks(chunks: tuple[OwnChunk, ...]) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(own.text, end - len(own.text), end, metadata=own.metadata)
        for own, end in zip(chunks, chunk_ends(chunks), strict=True)
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
