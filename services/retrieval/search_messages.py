"""Protobuf messages of searches to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from orrery.v1 import embedding_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.retrieval.asked_searches import AskedSearch
from services.retrieval.embedder import RerankBy
from services.retrieval.messages import known_enum, put_chunk, set_fields, value_of, vector_of
from services.retrieval.types import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Hit,
    Not,
    Operator,
    Picture,
    Query,
    SearchMode,
)
from services.runtime.errors import InvalidRequest

__all__ = ["asked_search", "filter_of", "put_hit", "query_of"]

_MODES: Mapping[int, SearchMode | None] = MappingProxyType(
    {
        pb.SEARCH_MODE_UNSPECIFIED: None,
        pb.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
        pb.SEARCH_MODE_DENSE: SearchMode.DENSE,
        pb.SEARCH_MODE_SPARSE: SearchMode.SPARSE,
    }
)
_RERANKS: Mapping[int, RerankBy | None] = MappingProxyType(
    {
        embedding_pb2.RERANK_METHOD_UNSPECIFIED: None,
        embedding_pb2.RERANK_METHOD_CROSS_ENCODER: RerankBy.CROSS_ENCODER,
        embedding_pb2.RERANK_METHOD_BI_ENCODER: RerankBy.BI_ENCODER,
    }
)
_OPERATORS: Mapping[int, Operator] = MappingProxyType(
    {
        pb.FILTER_OPERATOR_EQ: Operator.EQ,
        pb.FILTER_OPERATOR_NE: Operator.NE,
        pb.FILTER_OPERATOR_IN: Operator.IN,
        pb.FILTER_OPERATOR_NOT_IN: Operator.NOT_IN,
        pb.FILTER_OPERATOR_GT: Operator.GT,
        pb.FILTER_OPERATOR_GTE: Operator.GTE,
        pb.FILTER_OPERATOR_LT: Operator.LT,
        pb.FILTER_OPERATOR_LTE: Operator.LTE,
        pb.FILTER_OPERATOR_EXISTS: Operator.EXISTS,
    }
)


def query_of(message: pb.SearchQuery) -> Query:
    """A query; an empty text is none."""
    vector, image = message.vector, message.image
    return Query(
        text=message.text or None,
        vector=vector_of(vector) if vector else None,
        picture=Picture(image.data, image.media_type) if message.HasField("image") else None,
    )


def asked_search(message: pb.SearchOptions) -> AskedSearch:
    """The options that are set, the others by default. Raises `InvalidRequest`."""
    asked: dict[str, Any] = {}
    for name in ("k", "num_candidates", "min_score", "max_per_document"):
        if message.HasField(name):
            asked[name] = getattr(message, name)
    asked.update(set_fields(message.fusion))
    if message.HasField("filter"):
        asked["filter"] = filter_of(message.filter, "options.filter")
    if message.HasField("diversity"):
        given = message.diversity.HasField("lambda")
        asked["mmr_lambda"] = getattr(message.diversity, "lambda") if given else 0.5
    asked["mode"] = known_enum(message.mode, _MODES, "options.mode")
    asked["rerank"] = known_enum(message.rerank, _RERANKS, "options.rerank")
    if message.HasField("fusion") and asked["mode"] in (SearchMode.DENSE, SearchMode.SPARSE):
        raise InvalidRequest(
            f"options.fusion: a {asked['mode'].name} search has one ranking: nothing is fused",
            field="options.fusion",
        )
    return AskedSearch(**asked)


def filter_of(message: pb.Filter, field: str = "filter") -> Filter:
    """A filter. Raises `InvalidRequest` naming the part that is incomplete."""
    match message.WhichOneof("kind"):
        case "comparison":
            return _comparison(message.comparison, field)
        case "all_of":
            return AllOf(_filters(message.all_of.filters, f"{field}.all_of"))
        case "any_of":
            return AnyOf(_filters(message.any_of.filters, f"{field}.any_of"))
        case "not":
            return Not(filter_of(getattr(message, "not"), f"{field}.not"))
        case _:
            raise InvalidRequest(
                f"{field}: expected a comparison, all_of, any_of or not", field=field
            )


def _filters(messages: Iterable[pb.Filter], field: str) -> tuple[Filter, ...]:
    return tuple(filter_of(message, f"{field}[{i}]") for i, message in enumerate(messages))


def _comparison(message: pb.Comparison, field: str) -> Comparison:
    where = f"{field}.values"
    return Comparison(
        field=message.field,
        operator=known_enum(message.operator, _OPERATORS, f"{field}.operator"),
        values=tuple(value_of(value, where) for value in message.values),
    )


def put_hit(target: Any, found: Hit, *, with_text: bool, with_vectors: bool) -> None:
    """Adds a hit to a message's list."""
    message = target.add()
    vector = found.vector if with_vectors else None
    put_chunk(message.chunk, found.document, found.chunk, found.ordinal, vector, with_text)
    message.score = found.score
    if found.dense_score is not None:
        message.dense_score = found.dense_score
    if found.sparse_score is not None:
        message.sparse_score = found.sparse_score
    if found.dense_rank is not None:
        message.dense_rank = found.dense_rank
    if found.sparse_rank is not None:
        message.sparse_rank = found.sparse_rank
    if found.rerank_score is not None:
        message.rerank_score = found.rerank_score
