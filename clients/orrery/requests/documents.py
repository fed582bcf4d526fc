"""Requests that put documents into a collection or ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from orrery.channels import MAX_MESSAGE_BYTES
from orrery.documents import Document, DocumentChunk
from orrery.errors import InvalidRequestError
from orrery.filters import Filter
from orrery.requests.common import assign, read_file
from orrery.requests.filters import build_filter, fill_metadata
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["build_delete", "build_get", "build_list", "build_upsert"]


def build_upsert(
    collection: str, document: Document, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> pb.UpsertRequest:
    """An `Upsert` request; a document that is a path is read now.

    Raises:
        TypeError: A part of the document has a wrong type.
        InvalidRequestError: The file cannot be read, or is larger than `max_bytes` or a message.
    """
    request = pb.UpsertRequest()
    assign(request, "collection", collection)
    message, content = request.document, document.content
    assign(message, "id", document.id, "id")
    assign(message, "title", document.title, "title")
    fill_metadata(message.metadata, document.metadata, "metadata")
    if isinstance(content, str):
        assign(message, "text", content, "content")
    elif isinstance(content, bytes | bytearray | memoryview):
        _fill_file(message.file, bytes(content), document, Path(document.id).name)
    elif isinstance(content, os.PathLike):
        path = Path(content)
        data = read_file(path, "file", max_bytes=max_bytes)
        _fill_file(message.file, data, document, path.name)
    elif isinstance(content, Sequence):
        message.chunks.SetInParent()
        _fill_chunks(message.chunks, cast(Sequence[DocumentChunk], content))
    else:
        raise TypeError(
            f"content: expected a text, bytes, a path or chunks, got {type(content).__name__}"
        )
    _check_size(request, MAX_MESSAGE_BYTES)
    return request


def build_delete(
    collection: str, document_ids: Iterable[str] | None, condition: Filter | None
) -> pb.DeleteRequest:
    """A `Delete` request, by ids or by filter."""
    if (document_ids is None) is (condition is None):
        raise InvalidRequestError(
            "document_ids: expected either document ids or a filter", field="document_ids"
        )
    request = pb.DeleteRequest()
    assign(request, "collection", collection)
    if document_ids is not None:
        assign(request, "document_ids", _ids(document_ids))
    if condition is not None:
        request.filter.CopyFrom(build_filter(condition))
    return request


def build_get(
    collection: str,
    document_ids: Iterable[str],
    *,
    include_chunks: bool,
    include_vectors: bool,
) -> pb.GetRequest:
    """A `Get` request."""
    request = pb.GetRequest(include_chunks=include_chunks, include_vectors=include_vectors)
    assign(request, "collection", collection)
    assign(request, "document_ids", _ids(document_ids))
    return request


def build_list(
    collection: str, condition: Filter | None, page_size: int | None
) -> pb.ListDocumentsRequest:
    """A `ListDocuments` request for the first page."""
    request = pb.ListDocumentsRequest()
    assign(request, "collection", collection)
    if condition is not None:
        request.filter.CopyFrom(build_filter(condition))
    if page_size is not None:
        assign(request, "page_size", page_size)
    return request


def _ids(document_ids: Iterable[str]) -> list[str]:
    """One bare id is a list of one."""
    return [document_ids] if isinstance(document_ids, str) else list(document_ids)


def _fill_file(message: pb.FileContent, data: bytes, document: Document, default: str) -> None:
    message.data = data
    assign(message, "name", document.file_name or default, "file_name")
    assign(message, "media_type", document.media_type)


def _fill_chunks(message: pb.ChunkContents, chunks: Sequence[DocumentChunk]) -> None:
    for i, chunk in enumerate(chunks):
        field = f"chunks[{i}]"
        if not isinstance(chunk, DocumentChunk):
            raise TypeError(f"{field}: expected a DocumentChunk, got {type(chunk).__name__}")
        added = message.chunks.add()
        assign(added, "text", chunk.text, f"{field}.text")
        if chunk.vector is not None:
            assign(added, "vector", chunk.vector, f"{field}.vector")
        if chunk.start is not None:
            assign(added, "start", chunk.start, f"{field}.start")
        fill_metadata(added.metadata, chunk.metadata, f"{field}.metadata")


def _check_size(request: pb.UpsertRequest, limit: int) -> None:
    size = request.ByteSize()
    if size > limit:
        raise InvalidRequestError(
            f"document: {size} bytes do not fit into one message of {limit}", field="document"
        )
