"""A generation as named arrays, and back: what a snapshot keeps of an index.

format                      version of this layout
number                      of the generation
vocabulary.*                the terms, by id
segments                    how many there are
<i>.documents.*  <i>.chunks.*  <i>.postings.*  <i>.dense.*
<i>.living                  which documents are, where some were removed
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array, read_scalar
from services.retrieval.index.dense import DenseIndex
from services.retrieval.index.generation import Generation
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.index.postings import Postings, Vocabulary
from services.retrieval.index.segment import Segment, SegmentView, merge_segments
from services.retrieval.index.strings import StringColumn
from services.retrieval.index.tables import ChunkTable, DocumentTable
from services.retrieval.types import CollectionConfig, IndexType

__all__ = ["from_arrays", "to_arrays"]

FORMAT = 1


def to_arrays(generation: Generation) -> dict[str, npt.NDArray[Any]]:
    context = generation.context
    flat = [view for view in generation.views if view.segment.dense.ann is None]
    views = [view for view in generation.views if view.segment.dense.ann is not None]
    if len(flat) > 1 or any(view.living is not None for view in flat):
        # Flat it stays: what is due to get an ANN index gets it by a merge, not while saving.
        merged, _ = merge_segments(flat, _flat(context.config), context.policy)
        flat = [SegmentView(merged)]
    views += flat
    # The vocabulary keeps terms that nothing has any more; what is saved does not.
    used = np.unique(
        np.concatenate([np.empty(0, np.int32), *(v.segment.postings.terms for v in views)])
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        "format": np.array([FORMAT], dtype=np.int64),
        "number": np.array([generation.number], dtype=np.int64),
        "segments": np.array([len(views)], dtype=np.int64),
        **StringColumn.of(context.vocabulary.terms(used)).to_arrays("vocabulary"),
    }
    for number, view in enumerate(views):
        segment = view.segment
        arrays |= segment.documents.to_arrays(f"{number}.documents")
        arrays |= segment.chunks.to_arrays(f"{number}.chunks")
        arrays |= segment.postings.renumbered(used).to_arrays(f"{number}.postings")
        arrays |= segment.dense.to_arrays(f"{number}.dense")
        if view.living is not None:
            arrays[f"{number}.living"] = view.living
    return arrays


def from_arrays(
    config: CollectionConfig, arrays: Arrays, policy: SegmentPolicy
) -> tuple[int, list[SegmentView], Vocabulary]:
    """The generation's number and segments, and the vocabulary. Raises ValueError: malformed."""
    version = read_scalar(arrays, "format")
    if version != FORMAT:
        raise ValueError(f"format: {version} instead of {FORMAT}")
    terms = list(StringColumn.from_arrays(arrays, "vocabulary"))
    if len(set(terms)) < len(terms):
        raise ValueError("vocabulary: a term stands there twice")
    views: list[SegmentView] = []
    seen: set[str] = set()
    for number in range(read_scalar(arrays, "segments")):
        view = _read_view(config, arrays, (str(number), len(terms)), policy)
        ids = list(view.segment.documents.ids.take(view.document_numbers))
        if not seen.isdisjoint(ids):
            raise ValueError(f"{number}.documents.ids: some are in another segment, too")
        seen.update(ids)
        views.append(view)
    return read_scalar(arrays, "number"), views, Vocabulary(terms)


def _read_view(
    config: CollectionConfig, arrays: Arrays, part: tuple[str, int], policy: SegmentPolicy
) -> SegmentView:
    name, num_terms = part
    documents = DocumentTable.from_arrays(arrays, f"{name}.documents")
    num_rows = int(documents.row_offsets[-1])
    segment = Segment(
        documents=documents,
        chunks=ChunkTable.from_arrays(arrays, f"{name}.chunks", num_rows),
        postings=Postings.from_arrays(arrays, f"{name}.postings", num_rows, num_terms),
        dense=DenseIndex.from_arrays(
            arrays, f"{name}.dense", (num_rows, config.dimensions), policy
        ),
    )
    if f"{name}.living" not in arrays:
        return SegmentView(segment)
    return SegmentView(segment, read_array(arrays, f"{name}.living", np.bool_, (len(documents),)))


def _flat(config: CollectionConfig) -> CollectionConfig:
    index = config.index.model_copy(update={"type": IndexType.FLAT})
    return config.model_copy(update={"index": index})
