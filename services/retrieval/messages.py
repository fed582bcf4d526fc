"""Protobuf messages of `retrieval.proto` to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from orrery.v1 import common_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.retrieval.collections import (
    INDEX_PARAMETERS_OF,
    NO_EMBEDDING,
    AskedCollection,
    AskedConfig,
)
from services.retrieval.index.generation import StoredDocumentView
from services.retrieval.ingestion import Upserted, UpsertItem
from services.retrieval.log.state import CollectionView
from services.retrieval.raw_documents import OwnChunk, RawDocument, RawFile
from services.retrieval.timeline import Timeline
from services.retrieval.types import (
    Chunk,
    CollectionConfig,
    DocumentInfo,
    IndexType,
    Metadata,
    MetadataValue,
    Metric,
    UpsertStatus,
    Vectors,
)
from services.runtime.errors import InvalidRequest, OrreryError, kind_of

__all__ = [
    "asked_collection",
    "collection",
    "item_error",
    "known_enum",
    "metadata_of",
    "put_chunk",
    "put_metadata",
    "set_fields",
    "stored_document",
    "timeline_stages",
    "timestamp",
    "upsert_item",
    "upsert_response",
    "value_of",
    "vector_of",
]

_METRICS: Mapping[int, Metric] = MappingProxyType(
    {
        pb.METRIC_UNSPECIFIED: Metric.COSINE,
        pb.METRIC_COSINE: Metric.COSINE,
        pb.METRIC_DOT: Metric.DOT,
    }
)
_INDEX_TYPES: Mapping[int, IndexType] = MappingProxyType(
    {
        pb.INDEX_TYPE_UNSPECIFIED: IndexType.AUTO,
        pb.INDEX_TYPE_FLAT: IndexType.FLAT,
        pb.INDEX_TYPE_IVF: IndexType.IVF,
        pb.INDEX_TYPE_HNSW: IndexType.HNSW,
        pb.INDEX_TYPE_IVF_PQ: IndexType.IVF_PQ,
    }
)
_FIELD_TYPES: Mapping[str, pb.MetadataType] = MappingProxyType(
    {
        "string": pb.METADATA_TYPE_STRING,
        "number": pb.METADATA_TYPE_NUMBER,
        "bool": pb.METADATA_TYPE_BOOL,
        "string_list": pb.METADATA_TYPE_STRING_LIST,
    }
)
_STATUSES: Mapping[UpsertStatus, pb.UpsertStatus] = MappingProxyType(
    {
        UpsertStatus.ADDED: pb.UPSERT_STATUS_ADDED,
        UpsertStatus.REPLACED: pb.UPSERT_STATUS_REPLACED,
        UpsertStatus.UNCHANGED: pb.UPSERT_STATUS_UNCHANGED,
        UpsertStatus.FAILED: pb.UPSERT_STATUS_FAILED,
    }
)


# --- values -----------------------------------------------------------------------------------


def timestamp(unix_ms: int) -> Timestamp:
    """Milliseconds since 1970."""
    return Timestamp(seconds=unix_ms // 1000, nanos=unix_ms % 1000 * 1_000_000)


def known_enum(value: int, known: Mapping[int, Any], field: str) -> Any:
    """What an enum's value stands for. Raises `InvalidRequest` for one that is not known."""
    if value not in known:
        raise InvalidRequest(f"{field}: unknown value {value}", field=field)
    return known[value]


def vector_of(values: Any) -> npt.NDArray[np.float32]:
    """Numbers of a message as a vector."""
    return np.fromiter(values, np.float32, len(values))


def value_of(message: pb.MetadataValue, field: str) -> MetadataValue:
    """A metadata value. Raises `InvalidRequest` for a message that holds none."""
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "number_value":
            return message.number_value
        case "bool_value":
            return message.bool_value
        case "string_list":
            return tuple(message.string_list.values)
        case _:
            raise InvalidRequest(f"{field}: expected a value", field=field)


def metadata_of(message: Mapping[str, pb.MetadataValue], field: str) -> dict[str, MetadataValue]:
    """Metadata as the domain has it. Raises `InvalidRequest` for a value that is none."""
    return {name: value_of(value, f"{field}.{name}") for name, value in message.items()}


def put_metadata(target: Any, metadata: Metadata) -> None:
    """Writes metadata into a message's map."""
    for name, value in metadata.items():
        entry = target[name]
        if isinstance(value, str):
            entry.string_value = value
        elif isinstance(value, bool):
            entry.bool_value = value
        elif isinstance(value, tuple):
            entry.string_list.values.extend(value)
            entry.string_list.SetInParent()
        else:
            entry.number_value = value


def item_error(error: OrreryError) -> pb.ItemError:
    """Said as the status of a call of its own would say it."""
    return pb.ItemError(
        reason=kind_of(error).reason, message=error.message, field=error.field or ""
    )


def timeline_stages(timeline: Timeline) -> list[common_pb2.StageTiming]:
    """Every stage so far."""
    return [
        common_pb2.StageTiming(
            stage=stage.name,
            start_ns=stage.start_ns,
            duration_ns=stage.duration_ns,
            detail=stage.detail,
        )
        for stage in timeline.stages
    ]


# --- collections ------------------------------------------------------------------------------


def asked_collection(request: pb.CreateCollectionRequest) -> AskedCollection:
    """A collection to make."""
    return AskedCollection(
        name=request.name,
        title=request.title,
        config=_asked_config(request.config),
        metadata=dict(request.metadata),
        exist_ok=request.exist_ok,
    )


def _asked_config(message: pb.CollectionConfig) -> AskedConfig:
    index = set_fields(message.index_parameters)
    kind = known_enum(message.index_type, _INDEX_TYPES, "config.index_type")
    metric = known_enum(message.metric, _METRICS, "config.metric")
    return AskedConfig(
        dimensions=message.dimensions if message.HasField("dimensions") else None,
        embedding_application=message.embedding_application or None,
        fields={
            "metric": metric,
            "index": {"type": kind, **index},
            "chunking": set_fields(message.chunking),
            "sparse": set_fields(message.sparse),
        },
    )


def set_fields(message: Any) -> dict[str, Any]:
    """The fields that are set, by name."""
    return {descriptor.name: value for descriptor, value in message.ListFields()}


def collection(view: CollectionView) -> pb.Collection:
    """A collection as it is now, with the values of its config that were defaults."""
    generation = view.generation
    return pb.Collection(
        name=view.name,
        title=view.title,
        config=_config(view.config),
        metadata=dict(view.metadata),
        created_at=timestamp(view.created_at_ms),
        last_write_at=timestamp(view.last_write_at_ms),
        num_documents=generation.num_documents,
        num_chunks=generation.num_chunks,
        num_segments=generation.num_segments,
        index_generation=generation.number,
        memory_bytes=generation.memory_bytes,
        fields=[
            pb.MetadataField(name=name, types=sorted(_FIELD_TYPES[kind] for kind in types))
            for name, types in sorted(generation.fields.items())
        ],
    )


_METRIC_NUMBERS: Mapping[Metric, pb.Metric] = MappingProxyType(
    {Metric.COSINE: pb.METRIC_COSINE, Metric.DOT: pb.METRIC_DOT}
)
_INDEX_TYPE_NUMBERS: Mapping[IndexType, pb.IndexType] = MappingProxyType(
    {
        IndexType.AUTO: pb.INDEX_TYPE_UNSPECIFIED,
        IndexType.FLAT: pb.INDEX_TYPE_FLAT,
        IndexType.IVF: pb.INDEX_TYPE_IVF,
        IndexType.HNSW: pb.INDEX_TYPE_HNSW,
        IndexType.IVF_PQ: pb.INDEX_TYPE_IVF_PQ,
    }
)


def _config(config: CollectionConfig) -> pb.CollectionConfig:
    parameters = set(INDEX_PARAMETERS_OF[config.index.type])
    index = config.index.model_dump(include=parameters, exclude_none=True)
    return pb.CollectionConfig(
        dimensions=config.dimensions,
        embedding_application=config.embedding_application or NO_EMBEDDING,
        metric=_METRIC_NUMBERS[config.metric],
        index_type=_INDEX_TYPE_NUMBERS[config.index.type],
        index_parameters=pb.IndexParameters(**index),
        chunking=None
        if config.embedding_application is None
        else pb.ChunkingConfig(**config.chunking.model_dump()),
        sparse=pb.SparseConfig(**config.sparse.model_dump()),
    )


# --- documents --------------------------------------------------------------------------------


def upsert_item(request: pb.UpsertRequest) -> UpsertItem:
    """One message of a stream; what is wrong with its document is kept for its answer."""
    message = request.document
    try:
        document: RawDocument | InvalidRequest = RawDocument(
            id=message.id,
            title=message.title,
            content=_content(message),
            metadata=metadata_of(message.metadata, "document.metadata"),
        )
    except InvalidRequest as error:
        document = error
    return UpsertItem(request.collection, message.id, document)


def _content(message: pb.Document) -> RawFile | str | tuple[OwnChunk, ...]:
    match message.WhichOneof("content"):
        case "file":
            return RawFile(message.file.data, message.file.name, message.file.media_type)
        case "text":
            return message.text
        case "chunks":
            return tuple(
                _own_chunk(chunk, f"document.chunks[{index}]")
                for index, chunk in enumerate(message.chunks.chunks)
            )
        case _:
            raise InvalidRequest("document: expected file, text or chunks", field="document")


def _own_chunk(message: pb.ChunkContent, field: str) -> OwnChunk:
    return OwnChunk(
        text=message.text,
        vector=vector_of(message.vector) if message.vector else None,
        start=message.start if message.HasField("start") else None,
        metadata=metadata_of(message.metadata, f"{field}.metadata"),
    )


def upsert_response(upserted: Upserted, num_done: int) -> pb.UpsertResponse:
    """The answer to one document, the `num_done`-th of its stream."""
    token = str(upserted.position) if upserted.position.ms else ""
    return pb.UpsertResponse(
        document_id=upserted.document_id,
        status=_STATUSES[upserted.status],
        error=None if upserted.error is None else item_error(upserted.error),
        num_chunks=upserted.num_chunks,
        consistency_token=token,
        num_done=num_done,
        usage=common_pb2.Usage(prompt_tokens=upserted.num_tokens),
        timing=common_pb2.Timing(total_ns=upserted.total_ns),
    )


def stored_document(
    document: StoredDocumentView, *, with_chunks: bool, with_vectors: bool
) -> pb.StoredDocument:
    """A document, with its chunks when asked for."""
    info = document.info
    message = pb.StoredDocument(
        id=info.id,
        title=info.title,
        file_name=info.file_name,
        media_type=info.media_type,
        num_chunks=document.num_chunks,
        num_bytes=info.num_bytes,
        written_at=timestamp(info.written_at_ms),
        content_hash=info.content_hash,
    )
    put_metadata(message.metadata, info.metadata)
    if with_chunks:
        vectors = document.vectors if with_vectors else None
        for ordinal, chunk in enumerate(document.chunks):
            vector = None if vectors is None else vectors[ordinal]
            put_chunk(message.chunks.add(), info, chunk, ordinal, vector)
    return message


def put_chunk(
    message: pb.Chunk,
    info: DocumentInfo,
    chunk: Chunk,
    ordinal: int,
    vector: Vectors | None,
    with_text: bool = True,
) -> None:
    """Writes a chunk of a document into a message; `vector` None = without."""
    message.id = f"{info.id}#{ordinal}"
    message.document_id = info.id
    message.document_title = info.title
    message.file_name = info.file_name
    message.media_type = info.media_type
    message.ordinal = ordinal
    if with_text:
        message.text = chunk.text
    if chunk.title_path:
        message.title_path.extend(chunk.title_path)
    message.start = chunk.start
    message.end = chunk.end
    if chunk.line_start:
        message.line_start = chunk.line_start
        message.line_end = chunk.line_end
    if chunk.page:
        message.page = chunk.page
    if info.metadata or chunk.metadata:
        put_metadata(message.metadata, {**info.metadata, **chunk.metadata})
    if vector is not None:
        message.vector.extend(vector.tolist())
