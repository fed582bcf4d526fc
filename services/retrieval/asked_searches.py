"""What clients ask of a search: the options, which are refused, which mode fits a query.

Knows nothing of how the search is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.retrieval.checks import check_filter_form
from services.retrieval.config import RequestLimits
from services.retrieval.embedder import RerankBy
from services.retrieval.types import CollectionConfig, Filter, Query, SearchMode
from services.runtime.errors import InvalidRequest

__all__ = ["AskedSearch", "check_asked", "check_query", "check_rerankable", "chosen_mode"]

_MAX_RRF_K = 100_000


@dataclass(frozen=True, slots=True)
class AskedSearch:
    """What a client asks for; None = the default, which may depend on the query."""

    k: int = 10
    mode: SearchMode | None = None
    filter: Filter | None = None
    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    rrf_k: int = 20
    num_candidates: int | None = None
    min_score: float | None = None
    mmr_lambda: float | None = None
    max_per_document: int | None = None
    rerank: RerankBy | None = None


def check_asked(asked: AskedSearch, limits: RequestLimits) -> None:
    """Raises `InvalidRequest` naming the option that is out of range."""
    _check_range("options.k", asked.k, 1, limits.max_k)
    most = limits.max_rerank_candidates if asked.rerank is not None else limits.max_candidates
    if asked.num_candidates is not None:
        _check_range("options.num_candidates", asked.num_candidates, asked.k, most)
    elif asked.k > most:
        raise InvalidRequest(
            f"options.k: at most {most} chunks can be reranked, got {asked.k}", field="options.k"
        )
    _check_range("options.fusion.rrf_k", asked.rrf_k, 1, _MAX_RRF_K)
    weights = (("dense", asked.dense_weight), ("sparse", asked.sparse_weight))
    for name, weight in weights:
        _check_range(f"options.fusion.{name}_weight", weight, 0.0, 1e6)
    if asked.dense_weight == asked.sparse_weight == 0.0:
        raise InvalidRequest("options.fusion: one weight must be positive", field="options.fusion")
    if asked.min_score is not None and not math.isfinite(asked.min_score):
        raise InvalidRequest(
            "options.min_score: expected a finite number", field="options.min_score"
        )
    if asked.mmr_lambda is not None:
        _check_range("options.diversity.lambda", asked.mmr_lambda, 0.0, 1.0)
    if asked.max_per_document is not None:
        _check_range("options.max_per_document", asked.max_per_document, 1, limits.max_k)
    if asked.filter is not None:
        check_filter_form(asked.filter, "options.filter")


def _check_range(field: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN compares false
        raise InvalidRequest(f"{field}: expected {least} to {most}, got {value}", field=field)


def check_query(query: Query, limits: RequestLimits, field: str = "query") -> None:
    """Raises `InvalidRequest` for a query without content, or with too much."""
    if query.text is None and query.vector is None and query.picture is None:
        raise InvalidRequest(f"{field}: expected a text, a picture or a vector", field=field)
    if query.vector is not None and query.picture is not None:
        raise InvalidRequest(
            f"{field}.image: a query has a picture or a vector, not both", field=f"{field}.image"
        )
    if query.text is not None:
        if not query.text.strip():
            raise InvalidRequest(f"{field}.text: it is blank", field=f"{field}.text")
        if len(query.text.encode()) > limits.max_query_bytes:
            raise InvalidRequest(
                f"{field}.text: expected at most {limits.max_query_bytes} bytes",
                field=f"{field}.text",
            )


def chosen_mode(
    query: Query, asked: SearchMode | None, application: str | None, field: str
) -> SearchMode:
    """The mode that fits what the query has. Raises `InvalidRequest` where the asked one cannot."""
    has_text = query.text is not None
    can_be_embedded = has_text or query.picture is not None
    can_be_dense = query.vector is not None or (can_be_embedded and application is not None)
    if query.picture is not None and application is None:
        raise InvalidRequest(
            f"{field}.image: this collection has no embedding application", field=f"{field}.image"
        )
    if asked is None:
        if has_text and can_be_dense:
            return SearchMode.HYBRID
        return SearchMode.SPARSE if has_text else SearchMode.DENSE
    if asked is not SearchMode.DENSE and not has_text:
        raise InvalidRequest(
            f"{field}.text: {asked.name} mode searches by words; expected a text",
            field=f"{field}.text",
        )
    if asked is SearchMode.DENSE and has_text and query.picture is not None:
        raise InvalidRequest(
            f"{field}.text: DENSE mode searches by the picture alone; leave the text out, or ask "
            "for HYBRID",
            field=f"{field}.text",
        )
    if asked is SearchMode.SPARSE and query.picture is not None:
        raise InvalidRequest(
            f"{field}.image: SPARSE mode searches by words alone", field=f"{field}.image"
        )
    if asked is SearchMode.SPARSE and query.vector is not None:
        raise InvalidRequest(
            f"{field}.vector: SPARSE mode searches by words alone", field=f"{field}.vector"
        )
    if asked is not SearchMode.SPARSE and not can_be_dense:
        raise InvalidRequest(
            f"{field}.vector: this collection has no embedding application: a query by meaning "
            "brings its vector",
            field=f"{field}.vector",
        )
    return asked


def check_rerankable(query: Query, config: CollectionConfig, field: str) -> None:
    """Raises `InvalidRequest` where nothing can be reranked by the words of the query."""
    if config.embedding_application is None:
        raise InvalidRequest(
            "options.rerank: this collection has no embedding application", field="options.rerank"
        )
    if query.text is None:
        raise InvalidRequest(
            f"{field}.text: passages are reranked by the words of the query; expected a text",
            field=f"{field}.text",
        )
    if query.picture is not None:
        raise InvalidRequest(
            "options.rerank: passages are reranked by words, not by a picture",
            field="options.rerank",
        )
