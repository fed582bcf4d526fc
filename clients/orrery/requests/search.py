"""Requests that search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, cast

from orrery.errors import InvalidRequestError
from orrery.filters import Filter
from orrery.requests.common import assign, choose
from orrery.requests.embedding import RERANK_METHODS, RerankMethod
from orrery.requests.filters import build_filter
from orrery.requests.pictures import ImageInput, Picture, is_image
from orrery.v1 import retrieval_pb2 as pb

__all__ = [
    "FUSION_OPTIONS",
    "SEARCH_MODES",
    "SearchMode",
    "SearchOptions",
    "build_search",
    "build_search_batch",
    "fill_options",
]

SearchMode: TypeAlias = Literal["hybrid", "dense", "sparse"]
SEARCH_MODES = {
    "hybrid": pb.SEARCH_MODE_HYBRID,
    "dense": pb.SEARCH_MODE_DENSE,
    "sparse": pb.SEARCH_MODE_SPARSE,
}
FUSION_OPTIONS = ("dense_weight", "sparse_weight", "rrf_k")


class SearchOptions(TypedDict, total=False):
    """How to search. None = the service's default.

    The fields of `orrery.v1.SearchOptions`; those of its `fusion` stand beside the others.
    `diversity` is the lambda of maximal marginal relevance: 1 = relevance alone, 0 = diversity
    alone.
    """

    k: int | None
    mode: SearchMode | None
    filter: Filter | None
    dense_weight: float | None
    sparse_weight: float | None
    rrf_k: int | None
    num_candidates: int | None
    min_score: float | None
    diversity: float | None
    rerank: RerankMethod | None
    max_per_document: int | None
    include_text: bool | None
    include_vectors: bool | None


def build_search(
    collection: str,
    text: str | None,
    vector: Sequence[float] | None,
    image: ImageInput | None,
    options: Mapping[str, Any],
    *,
    explain: bool,
) -> tuple[pb.SearchRequest, list[Picture]]:
    """A `Search` request, and the picture that it still lacks."""
    request = pb.SearchRequest(explain=explain)
    assign(request, "collection", collection)
    if text is None and vector is None and image is None:
        raise InvalidRequestError("query: expected a text, a vector or a picture", field="query")
    if text is not None:
        assign(request.query, "text", text, "text")
    if vector is not None:
        assign(request.query, "vector", vector, "vector")
    pictures = [] if image is None else [Picture(request.query.image, image, "image")]
    _fill_search_options(request.options, options)
    return request, pictures


def build_search_batch(
    collection: str,
    queries: Iterable[str | Sequence[float] | ImageInput],
    options: Mapping[str, Any],
) -> tuple[pb.SearchBatchRequest, list[Picture]]:
    """A `SearchBatch` request, and the pictures that it still lacks."""
    if is_image(queries):  # a bare text among them
        raise TypeError("queries: expected several texts, vectors or pictures, got one")
    request, pictures = pb.SearchBatchRequest(), list[Picture]()
    assign(request, "collection", collection)
    for i, each in enumerate(queries):
        query, field = request.queries.add(), f"queries[{i}]"
        if isinstance(each, str):
            assign(query, "text", each, field)
        elif is_image(each):
            pictures.append(Picture(query.image, cast(ImageInput, each), field))
        else:
            assign(query, "vector", each, field)
    _fill_search_options(request.options, options)
    return request, pictures


def _fill_search_options(message: pb.SearchOptions, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in SearchOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}: not a search option")
    fill_options(message, options, mode_field="mode")


def fill_options(message: Any, options: Mapping[str, Any], *, mode_field: str) -> None:
    """Sets the options that are not None, by their names, in `SearchOptions` or `AskOptions`.

    Raises:
        TypeError: A value of a wrong type.
        InvalidRequestError: An unknown choice, or a number outside its field's range.
    """
    for name, value in options.items():
        if value is None:
            continue
        if name == mode_field:
            setattr(message, name, choose(SEARCH_MODES, value, name))
        elif name == "rerank":
            message.rerank = choose(RERANK_METHODS, value, name)
        elif name == "filter":
            message.filter.CopyFrom(build_filter(value))
        elif name == "diversity":
            assign(message.diversity, "lambda", value, name)
        elif name in FUSION_OPTIONS:
            assign(message.fusion, name, value)
        else:
            assign(message, name, value)
