"""BM25 over the living rows of a whole collection (Robertson and Zaragoza 2009, section 3).

    score(row, query) = sum over the query's terms t, repetitions counted, of
                        idf(t) * tf / (tf + k1 * (1 - b + b * length / mean length))
    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))

in the variant of Lucene, as bm25s has it. N, df and the mean length are of the living rows of all
segments, and a row's terms are added in the order of the query: so a row's score does not depend on
the segment that it is in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.retrieval.index.accumulating import accumulator
from services.retrieval.index.dense import Found
from services.retrieval.index.filters import Mask
from services.retrieval.index.segment import SegmentView
from services.retrieval.types import SparseConfig

__all__ = ["SparseIndex", "best_rows"]


@dataclass(frozen=True, slots=True)
class _Term:
    weight: np.float32  # idf times its repetitions in the query
    bounds: tuple[tuple[int, int], ...]  # of its postings, per view


class SparseIndex:
    """BM25 over some views, with their statistics."""

    def __init__(self, views: Sequence[SegmentView], config: SparseConfig) -> None:
        self._views = views
        self._num_rows = sum(view.num_rows for view in views)
        num_terms = sum(view.num_terms for view in views)
        mean_length = num_terms / self._num_rows if num_terms else 1.0
        # [num_rows] per view: what a row's length adds to tf in the formula's denominator
        self._norms = [
            (config.k1 * (1 - config.b + config.b * _lengths(view) / mean_length)).astype(
                np.float32
            )
            for view in views
        ]

    def search(
        self, term_ids: Sequence[int], num_wanted: int, allowed: Sequence[Mask | None]
    ) -> list[Found]:
        """Per view the best of the allowed rows that have a term of the query."""
        terms = self._terms(term_ids)
        return [
            self._search_view(number, terms, num_wanted, mask)
            for number, mask in enumerate(allowed)
        ]

    def _terms(self, term_ids: Sequence[int]) -> list[_Term]:
        if not self._views:
            return []
        repetitions = Counter(term_ids)
        ids = np.array(list(repetitions), dtype=np.int64)
        bounds = [view.segment.postings.bounds(ids) for view in self._views]
        terms: list[_Term] = []
        for times, places in zip(repetitions.values(), zip(*bounds, strict=True), strict=True):
            num_having = sum(
                _num_living(view, place) for view, place in zip(self._views, places, strict=True)
            )
            if num_having:
                idf = math.log(1 + (self._num_rows - num_having + 0.5) / (num_having + 0.5))
                terms.append(_Term(np.float32(idf * times), places))
        return terms

    def _search_view(
        self, number: int, terms: Sequence[_Term], num_wanted: int, allowed: Mask | None
    ) -> Found:
        postings, norms = self._views[number].segment.postings, self._norms[number]
        accumulate = accumulator()
        scores = np.zeros(postings.num_rows, dtype=np.float32)
        for term in terms:
            start, end = term.bounds[number]
            if start == end:
                continue
            rows, counts = postings.rows[start:end], postings.counts[start:end]
            accumulate(scores, rows, counts, norms, term.weight)
        if allowed is not None:
            scores *= allowed
        found = np.flatnonzero(scores > 0)
        return best_rows(found, scores[found], num_wanted)


def best_rows(
    rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], num_wanted: int
) -> Found:
    """Best first, equal ones by row."""
    if len(rows) > num_wanted:
        bound = np.partition(scores, len(scores) - num_wanted)[len(scores) - num_wanted]
        kept = scores >= bound  # all that are equal to the last one, too
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:num_wanted]
    return rows[order], scores[order]


def _lengths(view: SegmentView) -> npt.NDArray[np.float64]:
    return view.segment.postings.lengths.astype(np.float64)


def _num_living(view: SegmentView, bounds: tuple[int, int]) -> int:
    start, end = bounds
    living = view.living_rows
    if living is None:
        return end - start
    return int(np.count_nonzero(living[view.segment.postings.rows[start:end]]))
