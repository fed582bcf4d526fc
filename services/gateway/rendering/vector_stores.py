"""Files, vector stores and their files as JSON, in OpenAI's shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from orrery.v1 import file_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.gateway.rendering import values

__all__ = [
    "batch_document",
    "content_page",
    "file_document",
    "search_page",
    "vector_store_document",
    "vector_store_file_document",
]

_STATUSES = MappingProxyType(
    {
        file_pb2.ATTACHMENT_STATUS_COMPLETED: "completed",
        file_pb2.ATTACHMENT_STATUS_FAILED: "failed",
    }
)


def file_document(file: file_pb2.StoredFile) -> dict[str, Any]:
    """An uploaded file. It needs no processing of its own."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": values.seconds(file.created_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }


def vector_store_document(
    collection: pb.Collection, attachments: Sequence[file_pb2.Attachment]
) -> dict[str, Any]:
    """A collection as a vector store."""
    return {
        "id": collection.name,
        "object": "vector_store",
        "created_at": values.seconds(collection.created_at),
        "name": collection.title,
        "usage_bytes": collection.memory_bytes,
        "file_counts": _file_counts(attachments, len(attachments)),
        "status": "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": values.seconds(collection.last_write_at)
        if collection.HasField("last_write_at")
        else None,
        "metadata": dict(collection.metadata),
    }


def vector_store_file_document(
    attachment: file_pb2.Attachment, chunking: pb.ChunkingConfig
) -> dict[str, Any]:
    """A file of a vector store, which was cut as the vector store says."""
    return {
        "id": attachment.file_id,
        "object": "vector_store.file",
        "created_at": values.seconds(attachment.created_at),
        "usage_bytes": attachment.num_bytes,
        "vector_store_id": attachment.collection,
        "status": _STATUSES[attachment.status],
        "last_error": _last_error(attachment.error) if attachment.HasField("error") else None,
        "attributes": values.metadata(attachment.metadata),
        "chunking_strategy": {
            "type": "static",
            "static": {
                "max_chunk_size_tokens": chunking.max_tokens,
                "chunk_overlap_tokens": chunking.overlap_tokens,
            },
        },
    }


def batch_document(
    batch_id: str,
    vector_store_id: str,
    created_at: int,
    attachments: Sequence[file_pb2.Attachment],
    total: int,
) -> dict[str, Any]:
    """A batch of files. Those that were taken out since count as cancelled."""
    return {
        "id": batch_id,
        "object": "vector_store.files_batch",
        "created_at": created_at,
        "vector_store_id": vector_store_id,
        "status": "completed",
        "file_counts": _file_counts(attachments, total),
    }


def search_page(queries: Sequence[str], hits: Iterable[pb.Hit]) -> dict[str, Any]:
    """What was found, the most relevant first."""
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(queries),
        "data": [
            {
                "file_id": hit.chunk.document_id,
                "filename": hit.chunk.file_name or hit.chunk.document_title,
                # What `score_threshold` is compared with; a collection without vectors has BM25.
                "score": np.float32(hit.dense_score if hit.HasField("dense_score") else hit.score),
                "attributes": values.metadata(hit.chunk.metadata),
                "content": [{"type": "text", "text": hit.chunk.text}],
            }
            for hit in hits
        ],
        "has_more": False,
        "next_page": None,
    }


def content_page(chunks: Iterable[pb.Chunk]) -> dict[str, Any]:
    """The text of a file in pieces; what a chunk repeats of the one before it is left out."""
    pieces = []
    end = 0
    for chunk in chunks:
        new_text = chunk.text[max(0, end - chunk.start) :]
        end = max(end, chunk.end)
        if new_text:
            pieces.append({"type": "text", "text": new_text})
    return {
        "object": "vector_store.file_content.page",
        "data": pieces,
        "has_more": False,
        "next_page": None,
    }


def _file_counts(attachments: Iterable[file_pb2.Attachment], total: int) -> dict[str, int]:
    by_status = Counter(_STATUSES[attachment.status] for attachment in attachments)
    return {
        "in_progress": 0,
        "completed": by_status["completed"],
        "failed": by_status["failed"],
        "cancelled": total - by_status.total(),
        "total": total,
    }


def _last_error(error: pb.ItemError) -> dict[str, str]:
    code = "invalid_file" if error.reason == "INVALID_REQUEST" else "server_error"
    return {"code": code, "message": error.message}
