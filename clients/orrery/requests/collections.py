"""Requests about collections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from orrery.requests.common import assign, choose
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["INDEX_TYPES", "METRICS", "CollectionOptions", "build_create", "build_update"]

METRICS = {"cosine": pb.METRIC_COSINE, "dot": pb.METRIC_DOT}
INDEX_TYPES = {
    "auto": pb.INDEX_TYPE_UNSPECIFIED,
    "flat": pb.INDEX_TYPE_FLAT,
    "ivf": pb.INDEX_TYPE_IVF,
    "hnsw": pb.INDEX_TYPE_HNSW,
    "ivf_pq": pb.INDEX_TYPE_IVF_PQ,
}
# Where in `CollectionConfig` an option stands that is not a field of it: sub-message, name there.
_NESTED = {
    "num_lists": ("index_parameters", "num_lists"),
    "num_probes": ("index_parameters", "num_probes"),
    "hnsw_m": ("index_parameters", "hnsw_m"),
    "hnsw_ef_construction": ("index_parameters", "hnsw_ef_construction"),
    "hnsw_ef_search": ("index_parameters", "hnsw_ef_search"),
    "pq_num_subvectors": ("index_parameters", "pq_num_subvectors"),
    "chunk_max_tokens": ("chunking", "max_tokens"),
    "chunk_overlap_tokens": ("chunking", "overlap_tokens"),
    "bm25_k1": ("sparse", "k1"),
    "bm25_b": ("sparse", "b"),
    "language": ("sparse", "language"),
}


class CollectionOptions(TypedDict, total=False):
    """What a collection is created with and keeps; see `orrery.results.CollectionConfig`."""

    dimensions: int | None
    embedding_application: str | None
    metric: Literal["cosine", "dot"] | None
    index_type: Literal["auto", "flat", "ivf", "hnsw", "ivf_pq"] | None
    num_lists: int | None
    num_probes: int | None
    hnsw_m: int | None
    hnsw_ef_construction: int | None
    hnsw_ef_search: int | None
    pq_num_subvectors: int | None
    chunk_max_tokens: int | None
    chunk_overlap_tokens: int | None
    bm25_k1: float | None
    bm25_b: float | None
    language: str | None


def build_create(
    name: str,
    title: str,
    metadata: Mapping[str, str] | None,
    options: Mapping[str, Any],
    *,
    exist_ok: bool,
) -> pb.CreateCollectionRequest:
    """A `CreateCollection` request."""
    request = pb.CreateCollectionRequest(exist_ok=exist_ok)
    assign(request, "name", name)
    assign(request, "title", title)
    if metadata is not None:
        assign(request, "metadata", metadata)
    for option, value in options.items():
        if option not in CollectionOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {option!r}: not a collection's option")
        if value is not None:
            _fill(request.config, option, value)
    return request


def build_update(
    name: str, title: str | None, metadata: Mapping[str, str] | None
) -> pb.UpdateCollectionRequest:
    """An `UpdateCollection` request."""
    request = pb.UpdateCollectionRequest()
    assign(request, "name", name)
    if title is not None:
        assign(request, "title", title)
    if metadata is not None:
        request.metadata.SetInParent()
        assign(request.metadata, "values", metadata, "metadata")
    return request


def _fill(config: pb.CollectionConfig, option: str, value: Any) -> None:
    if option == "metric":
        config.metric = choose(METRICS, value, option)  # type: ignore[assignment]
    elif option == "index_type":
        config.index_type = choose(INDEX_TYPES, value, option)  # type: ignore[assignment]
    elif option in _NESTED:
        part, name = _NESTED[option]
        assign(getattr(config, part), name, value, option)
    else:
        assign(config, option, value)
