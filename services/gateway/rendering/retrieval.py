"""Collections, documents and hits as JSON. Knows nothing of OpenAI's vector stores."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from orrery.v1 import retrieval_pb2 as pb
from services.gateway.rendering import values

__all__ = [
    "DOCUMENT_NAMES",
    "OPTION_NAMES",
    "chunk_document",
    "collection_document",
    "hit_document",
    "search_batch_document",
    "search_document",
    "stored_document",
    "upserted_document",
]

_METRICS = MappingProxyType(
    {pb.METRIC_UNSPECIFIED: "cosine", pb.METRIC_COSINE: "cosine", pb.METRIC_DOT: "dot"}
)
_INDEX_TYPES = MappingProxyType(
    {
        pb.INDEX_TYPE_UNSPECIFIED: "auto",
        pb.INDEX_TYPE_FLAT: "flat",
        pb.INDEX_TYPE_IVF: "ivf",
        pb.INDEX_TYPE_HNSW: "hnsw",
        pb.INDEX_TYPE_IVF_PQ: "ivf_pq",
    }
)
_METADATA_TYPES = MappingProxyType(
    {
        pb.METADATA_TYPE_STRING: "string",
        pb.METADATA_TYPE_NUMBER: "number",
        pb.METADATA_TYPE_BOOL: "bool",
        pb.METADATA_TYPE_STRING_LIST: "string_list",
    }
)
_UPSERT_STATUSES = MappingProxyType(
    {
        pb.UPSERT_STATUS_ADDED: "added",
        pb.UPSERT_STATUS_REPLACED: "replaced",
        pb.UPSERT_STATUS_UNCHANGED: "unchanged",
        pb.UPSERT_STATUS_FAILED: "failed",
    }
)
# What the parts of a document are called by a client who sends documents.
DOCUMENT_NAMES = MappingProxyType({"document": ""})
# A client writes options beside what is asked, not within each other.
OPTION_NAMES = MappingProxyType({"options": ""})
_INDEX_PARAMETERS = tuple(pb.IndexParameters.DESCRIPTOR.fields_by_name)


def collection_document(collection: pb.Collection) -> dict[str, Any]:
    """A collection with its figures."""
    return {
        "name": collection.name,
        "object": "collection",
        "title": collection.title,
        "config": _config(collection.config),
        "metadata": dict(collection.metadata),
        "created_at": values.seconds(collection.created_at),
        "last_write_at": values.seconds(collection.last_write_at)
        if collection.HasField("last_write_at")
        else None,
        "num_documents": collection.num_documents,
        "num_chunks": collection.num_chunks,
        "num_segments": collection.num_segments,
        "index_generation": collection.index_generation,
        "memory_bytes": collection.memory_bytes,
        "fields": [
            {"name": field.name, "types": [_METADATA_TYPES[kind] for kind in field.types]}
            for field in collection.fields
        ],
    }


def _config(config: pb.CollectionConfig) -> dict[str, Any]:
    parameters = {name: _optional(config.index_parameters, name) for name in _INDEX_PARAMETERS}
    return {
        "dimensions": _optional(config, "dimensions"),
        "embedding_application": _optional(config, "embedding_application"),
        "metric": _METRICS[config.metric],
        "index": {"type": _INDEX_TYPES[config.index_type], **parameters},
        "chunking": {
            name: _optional(config.chunking, name) for name in ("max_tokens", "overlap_tokens")
        },
        "sparse": {
            "k1": _float(config.sparse, "k1"),
            "b": _float(config.sparse, "b"),
            "language": _optional(config.sparse, "language"),
        },
    }


def upserted_document(answer: pb.UpsertResponse) -> dict[str, Any]:
    """What became of one document."""
    return {
        "id": answer.document_id,
        "object": "document.upserted",
        "status": _UPSERT_STATUSES[answer.status],
        "error": values.item_error(answer.error, DOCUMENT_NAMES)
        if answer.HasField("error")
        else None,
        "num_chunks": answer.num_chunks,
        "embedding_tokens": answer.usage.prompt_tokens,
    }


def stored_document(
    document: pb.StoredDocument, *, chunks: bool = False, vectors: bool = False
) -> dict[str, Any]:
    """A document, with its chunks when asked for."""
    fields = {
        "id": document.id,
        "object": "document",
        "title": document.title,
        "file_name": document.file_name,
        "media_type": document.media_type,
        "metadata": values.metadata(document.metadata),
        "num_chunks": document.num_chunks,
        "num_bytes": document.num_bytes,
        "written_at": values.seconds(document.written_at),
        "content_hash": document.content_hash,
    }
    if chunks:
        fields["chunks"] = [chunk_document(chunk, vector=vectors) for chunk in document.chunks]
    return fields


def chunk_document(chunk: pb.Chunk, *, text: bool = True, vector: bool = False) -> dict[str, Any]:
    """A chunk and where it stands. Lines and pages that a format does not have are null."""
    fields = {
        "id": chunk.id,
        "document_id": chunk.document_id,
        "document_title": chunk.document_title,
        "file_name": chunk.file_name,
        "media_type": chunk.media_type,
        "ordinal": chunk.ordinal,
        "text": chunk.text if text else None,
        "title_path": list(chunk.title_path),
        "start": chunk.start,
        "end": chunk.end,
        "line_start": chunk.line_start or None,
        "line_end": chunk.line_end or None,
        "page": chunk.page or None,
        "metadata": values.metadata(chunk.metadata),
    }
    if vector:
        fields["vector"] = np.array(chunk.vector, np.float32)
    return fields


def hit_document(hit: pb.Hit, *, text: bool = True, vector: bool = False) -> dict[str, Any]:
    """A chunk that was found, and why."""
    return {
        **chunk_document(hit.chunk, text=text, vector=vector),
        "score": np.float32(hit.score),
        "dense_score": _float(hit, "dense_score"),
        "sparse_score": _float(hit, "sparse_score"),
        "dense_rank": _optional(hit, "dense_rank"),
        "sparse_rank": _optional(hit, "sparse_rank"),
        "rerank_score": _float(hit, "rerank_score"),
    }


def search_document(
    response: pb.SearchResponse, *, text: bool, vector: bool, explain: bool
) -> dict[str, Any]:
    """The answer to one query."""
    document = {
        "id": response.request_id,
        "object": "search",
        "hits": [hit_document(hit, text=text, vector=vector) for hit in response.hits],
        "index_generation": response.index_generation,
        "usage": values.usage(response.usage),
        "timing": values.timing(response.timing),
    }
    if explain:
        document["timeline"] = values.timeline(response.timeline)
    return document


def search_batch_document(
    response: pb.SearchBatchResponse, *, text: bool, vector: bool
) -> dict[str, Any]:
    """The answers to many."""
    return {
        "id": response.request_id,
        "object": "search",
        "results": [
            {
                "hits": [hit_document(hit, text=text, vector=vector) for hit in result.hits],
                "error": values.item_error(result.error, OPTION_NAMES)
                if result.HasField("error")
                else None,
            }
            for result in response.results
        ],
        "index_generation": response.index_generation,
        "usage": values.usage(response.usage),
        "timing": values.timing(response.timing),
    }


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _float(message: Any, name: str) -> Any:
    """Of float32: printed with no more digits than it has."""
    return np.float32(getattr(message, name)) if message.HasField(name) else None
