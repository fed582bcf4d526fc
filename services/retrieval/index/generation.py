"""An immutable state of a collection's index: what readers search and look up documents in.

Candidates are arrays of row numbers until the last step; hits are made for those alone that leave.
A row's number here is its number in its segment plus the rows of all segments before.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt

from services.retrieval.index import diversity
from services.retrieval.index.dense import Found
from services.retrieval.index.filters import Mask, check_comparisons
from services.retrieval.index.fusion import Ranking, fuse, in_order
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.index.postings import Vocabulary
from services.retrieval.index.queries import check_query, query_matrix
from services.retrieval.index.segment import DOCUMENT_ID, SegmentView
from services.retrieval.index.sparse import SparseIndex
from services.retrieval.index.tables import FILE_NAME
from services.retrieval.index.text import Analyzer
from services.retrieval.types import (
    Chunk,
    CollectionConfig,
    DocumentInfo,
    Filter,
    Hit,
    Query,
    SearchMode,
    SearchOptions,
    Vectors,
)

__all__ = ["Generation", "StoredDocumentView", "hits_needed"]


def hits_needed(options: SearchOptions, *, reranks: bool) -> int:
    """How many hits `candidates` has to make: more than `k` where some are passed over."""
    chooses = reranks or options.mmr_lambda is not None or options.max_per_document is not None
    return max(options.k, options.num_candidates) if chooses else options.k


@dataclass(frozen=True, slots=True, eq=False)
class StoredDocumentView:
    """A document of a generation; chunks and vectors are made when asked for."""

    _view: SegmentView
    _number: int

    @property
    def info(self) -> DocumentInfo:
        return self._view.segment.documents.info(self._number)

    @property
    def num_chunks(self) -> int:
        first, last = self._rows
        return last - first

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        table = self._view.segment.chunks
        return tuple(table.chunk(row) for row in range(*self._rows))

    @property
    def vectors(self) -> Vectors:
        """[num_chunks, dimensions], a copy."""
        return np.array(self._view.segment.dense.vectors[slice(*self._rows)])

    def chunks_nbytes(self, *, with_vectors: bool) -> int:
        """About what its chunks take by themselves: each with the document's metadata."""
        first, last = self._rows
        segment = self._view.segment
        each = len(segment.documents.spelt.raw(self._number))
        if with_vectors:
            each += segment.dense.vectors.itemsize * segment.dense.dimensions
        texts = segment.chunks.texts.offsets
        return int(texts[last] - texts[first]) + (last - first) * each

    @property
    def _rows(self) -> tuple[int, int]:
        offsets = self._view.segment.documents.row_offsets
        return int(offsets[self._number]), int(offsets[self._number + 1])


@dataclass(frozen=True, slots=True)
class IndexContext:
    """What all generations of a collection share."""

    config: CollectionConfig
    policy: SegmentPolicy
    analyzer: Analyzer
    vocabulary: Vocabulary  # grows; terms newer than a generation have no postings in it


class Generation:
    """Any number of threads may read. `number` grows with every change."""

    def __init__(self, number: int, views: Sequence[SegmentView], context: IndexContext) -> None:
        self.number = number
        self.views = tuple(views)
        self.context = context
        self.num_segments = len(self.views)
        self.num_documents = sum(view.num_documents for view in self.views)
        self.num_chunks = sum(view.num_rows for view in self.views)
        self._bases = [0]
        for view in self.views:
            self._bases.append(self._bases[-1] + view.segment.num_rows)

    @cached_property
    def memory_bytes(self) -> int:
        """Vectors, texts, metadata, indexes and the vocabulary."""
        return sum(v.segment.nbytes for v in self.views) + self.context.vocabulary.nbytes

    @cached_property
    def fields(self) -> Mapping[str, frozenset[str]]:
        """The metadata fields of some document or chunk, each with the types of its values."""
        return _by_name(view.fields for view in self.views)

    @cached_property
    def document_fields(self) -> Mapping[str, frozenset[str]]:
        """The same of documents alone, without what only their chunks have."""
        return _by_name(view.document_fields for view in self.views)

    # --- documents ----------------------------------------------------------------------------

    def get(self, document_id: str) -> StoredDocumentView | None:
        for view in self.views:
            number = view.find(document_id)
            if number is not None:
                return StoredDocumentView(view, number)
        return None

    def content_hash(self, document_id: str) -> str | None:
        for view in self.views:
            number = view.find(document_id)
            if number is not None:
                return view.segment.documents.content_hashes[number]
        return None

    def document_ids(
        self,
        *,
        after: str = "",
        limit: int,
        filter: Filter | None = None,  # noqa: A002 - the contract's word
    ) -> list[str]:
        """The first `limit` ids greater than `after`, ascending.

        A filter is about the documents' own metadata; their chunks' does not count.
        """
        found: list[list[str]] = []
        for view in self.views:
            ids = view.segment.documents.ids
            numbers = view.document_numbers
            if filter is not None:
                numbers = np.flatnonzero(view.allowed_documents(filter))
            first = np.searchsorted(numbers, ids.bisect(after, right=True))
            found.append(list(ids.take(numbers[first : first + limit])))
        return list(heapq.merge(*found))[:limit]

    def matching_documents(self, filter: Filter) -> list[str]:  # noqa: A002
        """Ids, ascending, of the documents whose own metadata matches."""
        return self.document_ids(limit=self.num_documents, filter=filter)

    def check_filter(self, filter: Filter, *, of_documents: bool = False) -> None:  # noqa: A002
        """Raises InvalidRequest naming the field that nothing has, or not of that type.

        `of_documents`: the filter chooses documents, not chunks. A field that only chunks have is
        refused then: every document would match its negation.
        """
        fields: dict[str, frozenset[str]] = {}
        if self.num_documents:
            reserved = frozenset({"string"})
            own = self.document_fields if of_documents else self.fields
            fields = {**own, DOCUMENT_ID: reserved, FILE_NAME: reserved}
        check_comparisons(filter, fields)

    # --- searching ----------------------------------------------------------------------------

    def candidates(
        self, queries: Sequence[Query], options: SearchOptions, *, limit: int | None = None
    ) -> list[list[Hit]]:
        """Per query the fused candidates that reach `min_score`, best first.

        `limit`: at most so many per query (see `hits_needed`); None: `options.num_candidates`, or
        `k` where that is more. Each ranking has so many candidates whatever the limit. Raises
        InvalidRequest for a query without what the mode needs, or of other dimensions.
        """
        for query in queries:
            self.check_query(query, options.mode)
        num_wanted = max(options.num_candidates, options.k)
        allowed = [view.allowed_rows(options.filter) for view in self.views]
        matrix = query_matrix(queries, self.context.config)
        nothing = Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        dense = sparse = [nothing] * len(queries)
        if options.mode is not SearchMode.SPARSE and matrix is not None:
            dense = self._dense(matrix, num_wanted, allowed)
        if options.mode is not SearchMode.DENSE:
            sparse = [self._sparse(query.text or "", num_wanted, allowed) for query in queries]
        most = num_wanted if limit is None else limit
        return [
            self._hits(pair, None if matrix is None else matrix[number], options, most)
            for number, pair in enumerate(zip(dense, sparse, strict=True))
        ]

    def check_query(self, query: Query, mode: SearchMode) -> None:
        """Raises InvalidRequest as `candidates` would."""
        check_query(query, mode, self.context.config)

    def select(self, hits: list[Hit], options: SearchOptions) -> list[Hit]:
        """Of hits best first, at most `k`: `max_per_document` and MMR applied."""
        return diversity.select(hits, options, self.context.config.metric)

    @cached_property
    def _sparse_index(self) -> SparseIndex:
        return SparseIndex(self.views, self.context.config.sparse)

    def _dense(
        self, matrix: Vectors, num_wanted: int, allowed: Sequence[Mask | None]
    ) -> list[Ranking]:
        index, policy = self.context.config.index, self.context.policy
        per_view = [
            view.segment.dense.search(matrix, num_wanted, mask, index, policy)
            for view, mask in zip(self.views, allowed, strict=True)
        ]
        return [
            self._ranking([found[query] for found in per_view], num_wanted)
            for query in range(len(matrix))
        ]

    def _sparse(self, text: str, num_wanted: int, allowed: Sequence[Mask | None]) -> Ranking:
        vocabulary = self.context.vocabulary
        ids = map(vocabulary.find, self.context.analyzer.terms(text))
        known = [number for number in ids if number is not None]
        return self._ranking(self._sparse_index.search(known, num_wanted, allowed), num_wanted)

    def _ranking(self, per_view: Sequence[Found], num_wanted: int) -> Ranking:
        if len(per_view) == 1:
            return Ranking(*per_view[0])
        bases = zip(per_view, self._bases, strict=False)
        rows = np.concatenate([np.empty(0, np.int64), *(rows + base for (rows, _), base in bases)])
        scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in per_view)])
        order = in_order(rows, scores, num_wanted, self._identity)
        return Ranking(rows[order], scores[order])

    def _hits(
        self,
        rankings: tuple[Ranking, Ranking],
        vector: Vectors | None,
        options: SearchOptions,
        limit: int,
    ) -> list[Hit]:
        dense, sparse = rankings
        weights = (options.dense_weight, options.sparse_weight)
        fused = fuse(rankings, weights, options.rrf_k)
        rows, (dense_ranks, sparse_ranks) = fused.rows, fused.ranks
        dense_scores = None if vector is None else self._dense_scores(dense, rows, vector)
        sparse_scores = _scores_at(sparse, sparse_ranks)
        scores: npt.NDArray[np.floating] = fused.scores
        if options.mode is SearchMode.SPARSE:
            scores = sparse_scores
        elif options.mode is SearchMode.DENSE:
            assert dense_scores is not None
            scores = dense_scores
        order = np.arange(len(rows))
        if options.min_score is not None:
            judged = sparse_scores if options.mode is SearchMode.SPARSE else dense_scores
            assert judged is not None
            order = np.flatnonzero(judged >= options.min_score)
        order = order[in_order(rows[order], scores[order], limit, self._identity)]
        return [
            self._hit(
                int(rows[at]),
                score=float(scores[at]),
                dense_score=None if dense_scores is None else float(dense_scores[at]),
                sparse_score=float(sparse_scores[at]) if sparse_ranks[at] else None,
                dense_rank=int(dense_ranks[at]) or None,
                sparse_rank=int(sparse_ranks[at]) or None,
            )
            for at in order.tolist()
        ]

    def _dense_scores(
        self, dense: Ranking, rows: npt.NDArray[np.int64], vector: Vectors
    ) -> npt.NDArray[np.float32]:
        """Of every row: those that the dense ranking does not have are computed."""
        scores = np.empty(len(rows), dtype=np.float32)
        found = np.zeros(len(rows), dtype=np.bool_)
        at = np.searchsorted(rows, dense.rows)
        scores[at], found[at] = dense.scores, True
        missing = np.flatnonzero(~found)
        owners = np.searchsorted(self._bases, rows[missing], side="right") - 1
        for owner in np.unique(owners).tolist():
            here = missing[owners == owner]
            index = self.views[owner].segment.dense
            scores[here] = index.scores(rows[here] - self._bases[owner], vector)
        return scores

    def _locate(self, row: int) -> tuple[SegmentView, int]:
        """The view that has the row, and the row's number in its segment."""
        owner = bisect_right(self._bases, row) - 1
        return self.views[owner], row - self._bases[owner]

    def _identity(self, row: int) -> tuple[str, int]:
        """(document id, ordinal): orders what nothing else does."""
        view, local = self._locate(row)
        documents = view.segment.documents
        number = int(view.segment.document_of[local])
        return documents.ids[number], local - int(documents.row_offsets[number])

    def _hit(self, row: int, **scores: float | int | None) -> Hit:
        view, local = self._locate(row)
        segment = view.segment
        number = int(segment.document_of[local])
        return Hit(
            document=segment.documents.info(number),
            chunk=segment.chunks.chunk(local),
            ordinal=local - int(segment.documents.row_offsets[number]),
            vector=np.array(segment.dense.vectors[local]),
            **scores,  # type: ignore[arg-type]
        )


def _by_name(fields: Iterable[Iterable[tuple[str, str]]]) -> Mapping[str, frozenset[str]]:
    types: dict[str, set[str]] = {}
    for name, kind in chain.from_iterable(fields):
        types.setdefault(name, set()).add(kind)
    types.pop(FILE_NAME, None)  # every document has one
    return {name: frozenset(kinds) for name, kinds in sorted(types.items())}


def _scores_at(ranking: Ranking, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """By rank; 0 where there is none."""
    return np.concatenate([np.zeros(1, np.float32), ranking.scores])[ranks].astype(np.float32)
