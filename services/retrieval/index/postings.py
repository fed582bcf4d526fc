"""Which terms stand in which rows, and how often: one immutable table per segment.

Term ids are those of the collection's vocabulary. Knows nothing of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array, read_rows
from services.retrieval.index.columns import RowMap

__all__ = ["Postings", "Vocabulary"]


class Vocabulary:
    """Terms and their ids, for all segments of a collection. Only grows; one thread adds."""

    def __init__(self, terms: Iterable[str] = ()) -> None:
        self._ids = {term: number for number, term in enumerate(terms)}

    def __len__(self) -> int:
        return len(self._ids)

    def terms(self, ids: npt.NDArray[np.integer]) -> list[str]:
        by_id = list(self._ids)  # at once, so that another thread may add meanwhile
        return [by_id[number] for number in ids.tolist()]

    def find(self, term: str) -> int | None:
        return self._ids.get(term)

    def ids(self, terms: Sequence[str]) -> list[int]:
        """Ids of terms, new ones are added."""
        known = self._ids
        ids = list(map(known.get, terms))
        if None in ids:
            ids = [known.setdefault(term, len(known)) for term in terms]
        return cast(list[int], ids)

    @property
    def nbytes(self) -> int:
        """About what the table and its strings take."""
        return 160 * len(self._ids)


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """By term, then row.

    `terms` [num_terms] ascending ids; term i stands in `rows[offsets[i]:offsets[i + 1]]`, as often
    as `counts` says. `lengths` [num_rows]: terms of the row, repetitions included.
    """

    terms: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint32]  # or narrower, where that holds them
    lengths: npt.NDArray[np.int32]

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> Postings:
        """From the term ids of each row."""
        lengths = np.array([len(ids) for ids in rows], dtype=np.int32)
        ids = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        keys, counts = np.unique(
            ids << 32 | np.repeat(np.arange(len(rows)), lengths), return_counts=True
        )
        return Postings._by_key(keys, counts, lengths)

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        parts = (self.terms, self.offsets, self.rows, self.counts, self.lengths)
        return sum(int(part.nbytes) for part in parts)

    def bounds(self, term_ids: npt.NDArray[np.integer]) -> list[tuple[int, int]]:
        """Where each term's rows stand in `rows`; an empty interval for a term without any."""
        if not len(self.terms):
            return [(0, 0)] * len(term_ids)
        at = np.minimum(np.searchsorted(self.terms, term_ids), len(self.terms) - 1)
        found = self.terms[at] == term_ids
        starts = np.where(found, self.offsets[at], 0)
        ends = np.where(found, self.offsets[at + 1], 0)
        return list(zip(starts.tolist(), ends.tolist(), strict=True))

    @staticmethod
    def merged(parts: Sequence[Postings], row_maps: Sequence[RowMap], num_rows: int) -> Postings:
        lengths = np.zeros(num_rows, dtype=np.int32)
        keys: list[npt.NDArray[np.int64]] = []
        counts: list[npt.NDArray[Any]] = []
        for part, row_map in zip(parts, row_maps, strict=True):
            kept = row_map >= 0
            lengths[row_map[kept]] = part.lengths[kept]
            rows = row_map[part.rows]
            terms = np.repeat(part.terms, np.diff(part.offsets))
            keep = rows >= 0
            keys.append(terms[keep].astype(np.int64) << 32 | rows[keep])
            counts.append(part.counts[keep])
        joined = np.concatenate(keys)
        order = np.argsort(joined)
        return Postings._by_key(joined[order], np.concatenate(counts)[order], lengths)

    def renumbered(self, used: npt.NDArray[np.integer]) -> Postings:
        """With places in `used`, ascending ids that include all of these, as ids."""
        terms = np.searchsorted(used, self.terms).astype(np.int32)
        return replace(self, terms=terms)

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        return {
            f"{name}.terms": self.terms,
            f"{name}.offsets": self.offsets,
            f"{name}.rows": self.rows,
            f"{name}.counts": self.counts.astype(np.uint32),
            f"{name}.lengths": self.lengths,
        }

    @staticmethod
    def from_arrays(arrays: Arrays, name: str, num_rows: int, num_terms: int) -> Postings:
        terms = read_rows(arrays, f"{name}.terms", (None,), num_terms)
        offsets = read_array(arrays, f"{name}.offsets", np.int64, (len(terms) + 1,))
        rows = read_rows(arrays, f"{name}.rows", (None,), num_rows)
        counts = read_array(arrays, f"{name}.counts", np.uint32, (len(rows),))
        lengths = read_array(arrays, f"{name}.lengths", np.int32, (num_rows,))
        if (np.diff(terms) <= 0).any():
            raise ValueError(f"{name}.terms: not ascending")
        if offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
            raise ValueError(f"{name}.offsets: does not divide the {len(rows)} rows")
        return Postings(terms, offsets, rows, _narrow(counts), lengths)

    @staticmethod
    def _by_key(
        keys: npt.NDArray[np.int64], counts: npt.NDArray[Any], lengths: npt.NDArray[np.int32]
    ) -> Postings:
        """From ascending `term << 32 | row`."""
        all_terms = (keys >> 32).astype(np.int32)
        firsts = np.flatnonzero(np.diff(all_terms, prepend=-1))
        offsets = np.append(firsts, len(keys)).astype(np.int64)
        rows = (keys & 0xFFFFFFFF).astype(np.int32)
        return Postings(all_terms[firsts], offsets, rows, _narrow(counts), lengths)


def _narrow(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """In the smallest type that holds them: nearly always a byte."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
