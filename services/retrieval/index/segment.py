"""A segment: an immutable piece of a collection's index. A view: a segment less what was removed.

Documents stand in order of their ids, their rows (chunks) in order of ordinals. So the order of
rows is the order of (document id, ordinal).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from services.retrieval.index.columns import (
    Column,
    FieldType,
    MetadataTable,
    RowMap,
    ragged_rows,
)
from services.retrieval.index.dense import DenseIndex
from services.retrieval.index.filters import NEGATIONS, Mask, compare, evaluate
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.index.postings import Postings, Vocabulary
from services.retrieval.index.tables import FILE_NAME, ChunkTable, DocumentTable, IdLookup
from services.retrieval.index.text import Analyzer, chunk_search_text
from services.retrieval.types import (
    CollectionConfig,
    Comparison,
    Filter,
    IndexedDocument,
    Operator,
    Vectors,
)

__all__ = ["DOCUMENT_ID", "Segment", "SegmentView", "build_segment", "merge_segments"]

DOCUMENT_ID = "document_id"  # compared like metadata
_RESERVED = frozenset({DOCUMENT_ID, FILE_NAME})


@dataclass(frozen=True, eq=False)
class Segment:
    documents: DocumentTable
    chunks: ChunkTable
    postings: Postings
    dense: DenseIndex

    @property
    def num_documents(self) -> int:
        return len(self.documents)

    @property
    def num_rows(self) -> int:
        return len(self.chunks)

    @cached_property
    def lookup(self) -> IdLookup:
        return IdLookup(self.documents.ids)

    @cached_property
    def document_of(self) -> npt.NDArray[np.int32]:
        """[num_rows]: each row's document."""
        sizes = np.diff(self.documents.row_offsets)
        return np.repeat(np.arange(self.num_documents, dtype=np.int32), sizes)

    @property
    def nbytes(self) -> int:
        parts = (self.documents, self.chunks, self.postings, self.dense, self.lookup)
        return sum(part.nbytes for part in parts) + int(self.document_of.nbytes)

    def compare_documents(self, comparison: Comparison) -> tuple[Mask, Mask]:
        """(documents that match by a value, documents that have one)."""
        if comparison.field != DOCUMENT_ID:
            return compare(self.documents.metadata, comparison)
        every = np.arange(self.num_documents, dtype=np.int32)
        ids = Column(FieldType.STRING, every, every, self.documents.ids)
        return compare(MetadataTable(self.num_documents, {DOCUMENT_ID: (ids,)}), comparison)

    def compare_rows(self, comparison: Comparison) -> tuple[Mask, Mask]:
        """The same of rows: their own value, or where they have none their document's."""
        matched, valued = self.compare_documents(comparison)
        matched, valued = matched[self.document_of], valued[self.document_of]
        if comparison.field not in _RESERVED:
            own_matched, own_valued = compare(self.chunks.metadata, comparison)
            matched = own_matched | (matched & ~own_valued)
            valued |= own_valued
        return matched, valued


class SegmentView:
    """A segment and which of its documents are still there. Immutable."""

    def __init__(self, segment: Segment, living: Mask | None = None) -> None:
        self.segment = segment
        self.living = living  # [num_documents]; None: all

    @cached_property
    def living_rows(self) -> Mask | None:
        """[num_rows]; None: all."""
        return None if self.living is None else self.living[self.segment.document_of]

    @cached_property
    def num_documents(self) -> int:
        if self.living is None:
            return self.segment.num_documents
        return int(np.count_nonzero(self.living))

    @cached_property
    def num_rows(self) -> int:
        rows = self.living_rows
        return self.segment.num_rows if rows is None else int(np.count_nonzero(rows))

    @cached_property
    def num_terms(self) -> int:
        """Of all living rows, repetitions included."""
        lengths, rows = self.segment.postings.lengths, self.living_rows
        return int((lengths if rows is None else lengths[rows]).sum(dtype=np.int64))

    @cached_property
    def document_fields(self) -> frozenset[tuple[str, str]]:
        """(name, type) of every metadata value of a living document itself."""
        return _fields(self.segment.documents.metadata, self.living)

    @cached_property
    def fields(self) -> frozenset[tuple[str, str]]:
        """The same of living documents and rows."""
        return self.document_fields | _fields(self.segment.chunks.metadata, self.living_rows)

    @cached_property
    def document_numbers(self) -> npt.NDArray[np.int64]:
        """The living documents."""
        if self.living is None:
            return np.arange(self.segment.num_documents)
        return np.flatnonzero(self.living)

    def without(self, documents: Iterable[int]) -> SegmentView:
        every = np.ones(self.segment.num_documents, dtype=np.bool_)
        living = every if self.living is None else self.living.copy()
        living[list(documents)] = False
        return SegmentView(self.segment, living)

    def find(self, document_id: str) -> int | None:
        """The living document of that id."""
        ids = self.segment.documents.ids
        at = ids.bisect(document_id)
        there = at < len(ids) and ids[at] == document_id
        return at if there and (self.living is None or self.living[at]) else None

    def find_many(self, ids: Sequence[str], hashes: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """(position in `ids`, document) of the living ones."""
        found = self.segment.lookup.find(ids, hashes)
        return [(at, d) for at, d in found if self.living is None or self.living[d]]

    def allowed_rows(self, condition: Filter | None) -> Mask | None:
        """Living rows that the filter holds for; None: all rows of the segment."""
        if condition is None:
            return self.living_rows
        segment = self.segment
        mask = evaluate(condition, lambda c: _settled(c, segment.compare_rows(c)), segment.num_rows)
        return mask if self.living_rows is None else mask & self.living_rows

    def allowed_documents(self, condition: Filter) -> Mask:
        """Living documents that the filter holds for by their own metadata."""
        segment = self.segment
        mask = evaluate(
            condition, lambda c: _settled(c, segment.compare_documents(c)), segment.num_documents
        )
        return mask if self.living is None else mask & self.living


def build_segment(
    documents: Sequence[IndexedDocument],
    config: CollectionConfig,
    policy: SegmentPolicy,
    terms: tuple[Analyzer, Vocabulary],
) -> Segment:
    """A segment of new documents with distinct ids. New terms enter the vocabulary."""
    analyzer, vocabulary = terms
    ordered = sorted(documents, key=lambda document: document.info.id)
    term_ids = [
        vocabulary.ids(analyzer.terms(chunk_search_text(chunk, document.info)))
        for document in ordered
        for chunk in document.chunks
    ]
    vectors = np.empty((len(term_ids), config.dimensions), dtype=np.float32)
    if ordered:
        np.concatenate([_vectors_of(document, config) for document in ordered], out=vectors)
    return Segment(
        documents=DocumentTable.of(ordered),
        chunks=ChunkTable.of([chunk for document in ordered for chunk in document.chunks]),
        postings=Postings.of(term_ids),
        dense=DenseIndex.build(vectors, config.index, policy),
    )


def merge_segments(
    views: Sequence[SegmentView], config: CollectionConfig, policy: SegmentPolicy
) -> tuple[Segment, list[RowMap]]:
    """One segment of all that lives in the views, which have no document in common.

    Also, for each view, where its documents stand in the new segment (-1: nowhere).
    """
    segments = [view.segment for view in views]
    ids = [id_ for view in views for id_ in view.segment.documents.ids.take(view.document_numbers)]
    bases = np.cumsum([0, *(segment.num_documents for segment in segments)])
    numbers = np.concatenate(
        [view.document_numbers + base for view, base in zip(views, bases[:-1], strict=True)]
    )
    # [num_living]: documents of all segments one after another, in the order of their ids
    documents = numbers[np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)]
    sizes = np.concatenate([np.diff(segment.documents.row_offsets) for segment in segments])
    rows, row_offsets = ragged_rows(np.concatenate([[0], np.cumsum(sizes)]), documents)
    document_maps = _inverse(documents, [segment.num_documents for segment in segments])
    row_maps = _inverse(rows, [segment.num_rows for segment in segments])
    vectors = np.empty((len(rows), config.dimensions), dtype=np.float32)
    for segment, row_map in zip(segments, row_maps, strict=True):
        kept = row_map >= 0
        vectors[row_map[kept]] = segment.dense.vectors[kept]
    merged = Segment(
        documents=DocumentTable.merged(
            [segment.documents for segment in segments], documents, row_offsets, document_maps
        ),
        chunks=ChunkTable.merged([segment.chunks for segment in segments], rows, row_maps),
        postings=Postings.merged([s.postings for s in segments], row_maps, len(rows)),
        dense=DenseIndex.build(vectors, config.index, policy),
    )
    return merged, document_maps


def _fields(table: MetadataTable, living: Mask | None) -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, str(column.type))
        for name, columns in table.columns.items()
        for column in columns
        if living is None or living[column.rows].any()
    )


def _settled(comparison: Comparison, result: tuple[Mask, Mask]) -> Mask:
    """Without a value, negations hold."""
    matched, valued = result
    if comparison.operator is Operator.EXISTS:
        return valued
    return matched | ~valued if comparison.operator in NEGATIONS else matched


def _inverse(order: npt.NDArray[np.int64], sizes: Sequence[int]) -> list[RowMap]:
    """For tables of these sizes, one after another, where `order` puts each of their rows."""
    places = np.full(sum(sizes), -1, dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return np.split(places, np.cumsum(sizes)[:-1])


def _vectors_of(document: IndexedDocument, config: CollectionConfig) -> Vectors:
    expected = (len(document.chunks), config.dimensions)
    if document.vectors.shape != expected:
        shape = document.vectors.shape
        raise ValueError(f"document {document.info.id!r}: vectors {shape} instead of {expected}")
    return document.vectors
