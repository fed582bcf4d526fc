"""Measures of a ranking, where documents are relevant or not.

A ranking is document ids, best first, each once. All measures are in [0, 1] and are averaged over
queries by whoever calls them. Manning, Raghavan and Schütze, Introduction to Information
Retrieval, chapter 8.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

__all__ = ["ndcg_at", "recall_at", "reciprocal_rank_at"]


def recall_at(k: int, ranking: Sequence[str], relevant: Collection[str]) -> float:
    """Share of the relevant documents that are among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(set(relevant))


def reciprocal_rank_at(k: int, ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant document among the first k, or 0."""
    wanted = set(relevant)
    ranks = (rank for rank, document in enumerate(ranking[:k], start=1) if document in wanted)
    return 1 / next(ranks, math.inf)


def ndcg_at(k: int, ranking: Sequence[str], relevant: Collection[str]) -> float:
    """Discounted cumulative gain of the first k, as a share of that of the best ranking.

    Gain 1 for a relevant document at rank r, discounted by log2(1 + r) (Järvelin and Kekäläinen
    2002).
    """
    wanted = set(relevant)
    found = [document in wanted for document in ranking[:k]]
    best = [True] * min(k, len(wanted))
    return _discounted(found) / _discounted(best)


def _discounted(gains: Sequence[bool]) -> float:
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains, start=1))
