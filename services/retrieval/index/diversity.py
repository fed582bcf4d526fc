"""Choosing hits that differ: maximal marginal relevance (Carbonell and Goldstein 1998).

next = argmax of lambda * relevance - (1 - lambda) * (cosine to the nearest one chosen)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from services.retrieval.types import Hit, Metric, SearchOptions, Vectors

__all__ = ["select"]


def select(hits: Sequence[Hit], options: SearchOptions, metric: Metric) -> list[Hit]:
    """At most `k`, at most `max_per_document` of a document, diverse where that is asked for."""
    most = options.max_per_document
    if options.mmr_lambda is None:
        return _first_of_each(hits, options.k, most)
    return _diverse(hits, options, metric)


def _first_of_each(hits: Sequence[Hit], k: int, most: int | None) -> list[Hit]:
    if most is None:
        return list(hits[:k])
    chosen: list[Hit] = []
    of_document: Counter[str] = Counter()
    for hit in hits:
        if len(chosen) == k:
            break
        if of_document[hit.document.id] < most:
            of_document[hit.document.id] += 1
            chosen.append(hit)
    return chosen


def _diverse(hits: Sequence[Hit], options: SearchOptions, metric: Metric) -> list[Hit]:
    if not hits:
        return []
    assert options.mmr_lambda is not None
    relevance = options.mmr_lambda * _relevance(hits, metric)
    vectors = _unit_vectors(hits)
    nearest = np.zeros(len(hits))  # to the first one nothing is near
    open_ = np.ones(len(hits), dtype=np.bool_)
    of_document: Counter[str] = Counter()
    chosen: list[Hit] = []
    while len(chosen) < options.k and open_.any():
        gain = np.where(open_, relevance - (1 - options.mmr_lambda) * nearest, -np.inf)
        best = int(gain.argmax())  # of equal ones the first
        hit = hits[best]
        similarity = vectors @ vectors[best]
        nearest = np.maximum(nearest, similarity) if chosen else similarity
        open_[best] = False
        chosen.append(hit)
        of_document[hit.document.id] += 1
        if of_document[hit.document.id] == options.max_per_document:
            open_ &= np.array([other.document.id != hit.document.id for other in hits])
    return chosen


def _relevance(hits: Sequence[Hit], metric: Metric) -> Vectors:
    """Cosines as they are; scores of any other kind brought to 0..1."""
    cosines = [hit.dense_score for hit in hits if hit.rerank_score is None]
    known = [score for score in cosines if score is not None]
    if metric is Metric.COSINE and len(known) == len(hits):
        return np.array(known, dtype=np.float32)
    scores = np.array([hit.score for hit in hits], dtype=np.float32)
    spread = float(scores.max() - scores.min())
    return (scores - scores.min()) / spread if spread else np.ones_like(scores)


def _unit_vectors(hits: Sequence[Hit]) -> Vectors:
    vectors = np.array([hit.vector for hit in hits], dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
