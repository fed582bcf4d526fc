"""Rankings made one: reciprocal-rank fusion (Cormack, Clarke and Buettcher 2009).

    score(row) = sum over the rankings that it is in of weight / (rrf_k + rank), ranks from 1

Knows rows as numbers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ranking", "fuse", "in_order"]

TieKey = Callable[[int], Any]  # orders rows whose scores are equal


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Rows [n], best first, and their scores."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.floating[Any]]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """Rows [n] of several rankings in no order; a rank of 0 = not in that ranking."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    ranks: tuple[npt.NDArray[np.int64], ...]


def fuse(rankings: tuple[Ranking, ...], weights: tuple[float, ...], rrf_k: int) -> Fused:
    rows = np.unique(np.concatenate([ranking.rows for ranking in rankings]))
    scores = np.zeros(len(rows), dtype=np.float64)
    ranks: list[npt.NDArray[np.int64]] = []
    for ranking, weight in zip(rankings, weights, strict=True):
        at = np.searchsorted(rows, ranking.rows)
        rank = np.zeros(len(rows), dtype=np.int64)
        rank[at] = np.arange(1, len(ranking) + 1)
        scores[at] += weight / (rrf_k + rank[at])
        ranks.append(rank)
    return Fused(rows, scores, tuple(ranks))


def in_order(
    rows: npt.NDArray[np.int64], scores: npt.NDArray[np.floating[Any]], limit: int, key: TieKey
) -> npt.NDArray[np.intp]:
    """Positions of the best `limit` rows, best first, equal ones by `key` of the row.

    Keys are looked up for equal scores alone, and not below the last that is wanted.
    """
    order = np.argsort(-scores, kind="stable")
    if limit <= 0 or not len(order):
        return order[:0]
    sorted_scores = scores[order]
    if len(order) > limit:
        reaching = int(np.count_nonzero(sorted_scores >= sorted_scores[limit - 1]))
        order, sorted_scores = order[:reaching], sorted_scores[:reaching]
    borders = np.flatnonzero(np.diff(sorted_scores)) + 1
    starts = [0, *borders.tolist()]
    ends = [*borders.tolist(), len(order)]
    for start, end in zip(starts, ends, strict=True):
        if end - start > 1:
            tied = order[start:end].tolist()
            tied.sort(key=lambda position: key(int(rows[position])))
            order[start:end] = tied
    return order[:limit]
