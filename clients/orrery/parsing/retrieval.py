"""Answers of the retrieval service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from orrery.errors import OrreryError
from orrery.parsing.common import (
    item_error,
    name_of,
    optional,
    same_fields,
    timeline_of,
    timing_of,
    usage_of,
)
from orrery.requests.collections import INDEX_TYPES, METRICS
from orrery.results import (
    Chunk,
    Collection,
    CollectionConfig,
    DeleteResult,
    Hit,
    MetadataField,
    MetadataValue,
    RetrievalLoad,
    SearchBatchResult,
    SearchResult,
    SnapshotInfo,
    StoredDocument,
    UpsertResult,
    UpsertStatus,
)
from orrery.v1 import retrieval_pb2 as pb

__all__ = [
    "parse_collection",
    "parse_delete",
    "parse_document",
    "parse_hit",
    "parse_retrieval_load",
    "parse_search",
    "parse_search_batch",
    "parse_snapshot",
    "parse_upsert",
]

_STATUSES: dict[int, UpsertStatus] = {
    pb.UPSERT_STATUS_ADDED: "added",
    pb.UPSERT_STATUS_REPLACED: "replaced",
    pb.UPSERT_STATUS_UNCHANGED: "unchanged",
    pb.UPSERT_STATUS_FAILED: "failed",
}
_METADATA_TYPES = {
    "string": pb.METADATA_TYPE_STRING,
    "number": pb.METADATA_TYPE_NUMBER,
    "bool": pb.METADATA_TYPE_BOOL,
    "string_list": pb.METADATA_TYPE_STRING_LIST,
}


def parse_collection(message: pb.Collection) -> Collection:
    """A collection."""
    return same_fields(
        Collection,
        message,
        config=_config(message.config),
        metadata=dict(message.metadata),
        created_at=_time(message.created_at),
        last_write_at=_time(message.last_write_at),
        fields=tuple(
            MetadataField(field.name, tuple(name_of(_METADATA_TYPES, t) for t in field.types))
            for field in message.fields
        ),
    )


def parse_upsert(response: pb.UpsertResponse, request_id: str, num_done: int) -> UpsertResult:
    """What became of one document."""
    failed = response.status == pb.UPSERT_STATUS_FAILED
    return same_fields(
        UpsertResult,
        response,
        status=_STATUSES.get(response.status, "unknown"),
        error=item_error(response.error, request_id) if failed else None,
        num_done=num_done,
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_delete(response: pb.DeleteResponse) -> DeleteResult:
    """How many documents were removed."""
    return same_fields(DeleteResult, response, timing=timing_of(response.timing))


def parse_document(message: pb.StoredDocument) -> StoredDocument:
    """A document."""
    return same_fields(
        StoredDocument,
        message,
        metadata=_metadata(message.metadata),
        written_at=_time(message.written_at),
        chunks=tuple(_chunk(chunk) for chunk in message.chunks),
    )


def parse_search(response: pb.SearchResponse) -> SearchResult:
    """The hits of one search."""
    return same_fields(
        SearchResult,
        response,
        hits=_hits(response.hits),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
        timeline=timeline_of(response.timeline),
    )


def parse_search_batch(response: pb.SearchBatchResponse) -> SearchBatchResult:
    """Many searches; an error of one stands in its place."""

    def result(each: pb.SearchResult) -> tuple[Hit, ...] | OrreryError:
        if each.HasField("error"):
            return item_error(each.error, response.request_id)
        return _hits(each.hits)

    return same_fields(
        SearchBatchResult,
        response,
        results=tuple(result(each) for each in response.results),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_hit(message: pb.Hit) -> Hit:
    """A chunk that was found."""
    scores = ("dense_score", "sparse_score", "dense_rank", "sparse_rank", "rerank_score")
    found = {name: optional(message, name) for name in scores}
    return same_fields(Hit, message, chunk=_chunk(message.chunk), **found)


def parse_snapshot(response: pb.SnapshotResponse) -> SnapshotInfo:
    """A snapshot."""
    return same_fields(SnapshotInfo, response, timing=timing_of(response.timing))


def parse_retrieval_load(response: pb.RetrievalServiceGetLoadResponse) -> RetrievalLoad:
    """What a replica is doing."""
    return same_fields(RetrievalLoad, response)


def _hits(messages: Iterable[pb.Hit]) -> tuple[Hit, ...]:
    return tuple(parse_hit(message) for message in messages)


def _chunk(message: pb.Chunk) -> Chunk:
    return same_fields(
        Chunk,
        message,
        title_path=tuple(message.title_path),
        line_start=message.line_start or None,
        line_end=message.line_end or None,
        page=message.page or None,
        metadata=_metadata(message.metadata),
        vector=tuple(message.vector) or None,
    )


def _config(message: pb.CollectionConfig) -> CollectionConfig:
    parameters: tuple[tuple[Message, str, str], ...] = (
        (message.chunking, "max_tokens", "chunk_max_tokens"),
        (message.chunking, "overlap_tokens", "chunk_overlap_tokens"),
        (message.sparse, "k1", "bm25_k1"),
        (message.sparse, "b", "bm25_b"),
        (message.sparse, "language", "language"),
        (message, "dimensions", "dimensions"),
        (message, "embedding_application", "embedding_application"),
    )
    indexing = pb.IndexParameters.DESCRIPTOR.fields_by_name
    return CollectionConfig(
        metric=name_of(METRICS, message.metric or pb.METRIC_COSINE),
        index_type=name_of(INDEX_TYPES, message.index_type),
        **{name: optional(message.index_parameters, name) for name in indexing},
        **{name: optional(part, field) for part, field, name in parameters},
    )


def _metadata(messages: Mapping[str, pb.MetadataValue]) -> dict[str, MetadataValue]:
    return {name: _value(message) for name, message in messages.items()}


def _value(message: pb.MetadataValue) -> MetadataValue:
    kind = message.WhichOneof("kind")
    if kind is None:  # a kind that is newer than this client
        return ""
    value: Any = getattr(message, kind)
    return tuple(value.values) if kind == "string_list" else value


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
