from __future__ import annotations

import numpy as np
import pytest

from services.retrieval.index.diversity import select
from services.retrieval.types import Hit, Metric, SearchMode, SearchOptions, Vectors
from tests.unit.retrieval.index.reference import document, unit_vectors


def hits(vectors: Vectors, query: Vectors, ids: list[str] | None = None) -> list[Hit]:
    """Best first, as a dense search gives them."""
    made = []
    for at, vector in enumerate(vectors):
        one = document(ids[at] if ids else f"doc-{at}")
        score = float(vector @ query)
        made.append(Hit(one.info, one.chunks[0], 0, score, dense_score=score, vector=vector))
    return sorted(made, key=lambda hit: -hit.score)


def options(k: int, mmr_lambda: float | None = None, most: int | None = None) -> SearchOptions:
    return SearchOptions(SearchMode.DENSE, k, mmr_lambda=mmr_lambda, max_per_document=most)


def by_definition(found: list[Hit], k: int, balance: float) -> list[str]:
    left, chosen = list(found), []
    while left and len(chosen) < k:
        gains = [
            balance * hit.dense_score
            - (1 - balance) * max((float(hit.vector @ c.vector) for c in chosen), default=0.0)
            for hit in left
        ]
        chosen.append(left.pop(int(np.argmax(gains))))
    return [hit.document.id for hit in chosen]


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 0.9])
def test_mmr_chooses_as_defined(balance: float) -> None:
    generator = np.random.default_rng(2)
    query = unit_vectors(generator, 8)
    found = hits(unit_vectors(generator, 40, 8), query)
    chosen = select(found, options(12, balance), Metric.COSINE)
    assert [hit.document.id for hit in chosen] == by_definition(found, 12, balance)


def test_lambda_1_is_relevance_alone() -> None:
    generator = np.random.default_rng(2)
    found = hits(unit_vectors(generator, 20, 8), unit_vectors(generator, 8))
    assert select(found, options(5, 1.0), Metric.COSINE) == found[:5]


def test_copy_of_the_best_comes_after_another_topic() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8]], dtype=np.float32)
    found = hits(vectors, np.array([1, 0], dtype=np.float32), ["best", "copy", "other"])
    chosen = select(found, options(2, 0.4), Metric.COSINE)
    assert [hit.document.id for hit in chosen] == ["best", "other"]


@pytest.mark.parametrize("mmr_lambda", [None, 0.5])
def test_no_document_has_more_hits_than_allowed(mmr_lambda: float | None) -> None:
    generator = np.random.default_rng(4)
    ids = [f"doc-{at % 3}" for at in range(30)]
    found = hits(unit_vectors(generator, 30, 8), unit_vectors(generator, 8), ids)
    chosen = select(found, options(10, mmr_lambda, most=2), Metric.COSINE)
    counts = [sum(hit.document.id == f"doc-{at}" for hit in chosen) for at in range(3)]
    assert counts == [2, 2, 2]


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.COSINE])
def test_mmr_after_reranking_takes_its_scores_for_relevance(metric: Metric) -> None:
    vectors = np.eye(4, dtype=np.float32)
    found = hits(vectors, np.array([0.9, 0.5, 0.3, 0.1], dtype=np.float32))
    for hit, score in zip(found, (-9.0, -2.0, 3.0, 8.0), strict=True):
        hit.rerank_score = hit.score = score
    found.reverse()
    assert select(found, options(4, 0.5), metric) == found


def test_zero_vectors_and_no_hits_are_chosen_from() -> None:
    found = hits(np.zeros((3, 4), dtype=np.float32), np.ones(4, dtype=np.float32))
    assert len(select(found, options(2, 0.5), Metric.COSINE)) == 2
    assert select([], options(2, 0.5), Metric.COSINE) == []
    assert select([], options(2), Metric.COSINE) == []
