"""An index as arrays and back; arrays that are no index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    Comparison,
    IndexConfig,
    IndexType,
    Operator,
    Query,
    SearchMode,
    SearchOptions,
)
from tests.unit.retrieval.index.reference import (
    CONFIG,
    DIMENSIONS,
    document,
    index_of,
    random_documents,
    unit_vectors,
)

HNSW = CONFIG.model_copy(update={"index": IndexConfig(type=IndexType.HNSW)})
POLICY = SegmentPolicy(inline_rows=16, min_ann_rows=100, num_threads=1)
# Arrays that may have any whole number.
ANY_NUMBER = (
    *("lengths", "num_bytes", "written_at_ms", "starts", "ends", "pages", "number"),
    *("lines_start", "lines_end"),
)
Arrays = dict[str, np.ndarray[Any, Any]]


def sample() -> CollectionIndex:
    """An HNSW segment with removed documents, and flat ones."""
    index = CollectionIndex(HNSW, POLICY)
    documents = random_documents(np.random.default_rng(0), 150)
    index.apply([Put(one) for one in documents])
    index.apply(
        [
            Put(
                document("t-1", ["one", "two"], metadata={"tags": ("a", "b"), "n": 2.0, "b": True})
            ),
            Put(document("t-2", ["one"], chunk_metadata=[{"tags": (), "s": "x", "n": "two"}])),
        ]
    )
    index.apply([Remove(("doc-0003", "doc-0140"))])
    index.apply([Put(document(f"u-{at}", ["ünique", "wörds"])) for at in range(20)])
    return index


def answers(index: CollectionIndex) -> list[object]:
    generation = index.generation
    query = Query("red ünique two", unit_vectors(np.random.default_rng(5), DIMENSIONS))
    found: list[object] = []
    for mode in SearchMode:
        for condition in (
            None,
            Comparison("tags", Operator.EQ, ("a",)),
            Comparison("n", Operator.NE, (2.0,)),
        ):
            (hits,) = generation.candidates([query], SearchOptions(mode, 20, condition))
            found.append([(h.document, h.chunk, h.ordinal, h.score, h.dense_score) for h in hits])
    return [*found, generation.document_ids(limit=500), generation.fields, generation.num_chunks]


def test_index_comes_back_as_it_was() -> None:
    index = sample()
    arrays = load(save(index.to_arrays()))
    again = CollectionIndex.from_arrays(HNSW, arrays, POLICY)
    assert answers(again) == answers(index)
    assert again.generation.number == index.generation.number
    kinds = {view.segment.dense.type for view in again.generation.views}
    assert kinds == {IndexType.HNSW, IndexType.FLAT}
    more = [Put(document("new", ["red"])), Remove(("u-3", "doc-0001"))]
    assert again.apply(more).number == index.apply(more).number
    assert answers(again) == answers(index)


def test_flat_segments_are_saved_as_one_without_what_was_removed() -> None:
    index = index_of(random_documents(np.random.default_rng(0), 60), inline_rows=4)
    gone = tuple(f"doc-{at:04d}" for at in range(0, 60, 2))
    index.apply([Remove(gone)])
    index.apply([Put(document("only", ["zebra"])), Put(document("brief", ["quagga"]))])
    index.apply([Remove(("brief",))])
    again = CollectionIndex.from_arrays(CONFIG, index.to_arrays())
    (view,) = again.generation.views
    assert view.segment.num_documents == 31
    vocabulary = again.generation.context.vocabulary
    assert vocabulary.find("zebra") is not None
    assert vocabulary.find("quagga") is None
    assert answers(again) == answers(index)


def test_older_generation_can_be_saved() -> None:
    index = index_of([document("a"), document("b")])
    older = index.generation
    index.apply([Remove(("a",)), Put(document("c", ["later words"]))])
    again = CollectionIndex.from_arrays(CONFIG, index.to_arrays(older))
    assert again.generation.document_ids(limit=9) == ["a", "b"]
    assert again.generation.number == older.number


def test_empty_index_comes_back() -> None:
    again = CollectionIndex.from_arrays(CONFIG, CollectionIndex(CONFIG).to_arrays())
    assert again.generation.num_documents == 0
    again.apply([Put(document("a"))])
    assert again.generation.num_documents == 1


def _broken(arrays: Arrays) -> list[tuple[str, np.ndarray[Any, Any] | None]]:
    """For each array: missing, shorter, of another type, with numbers out of range."""
    changes: list[tuple[str, np.ndarray[Any, Any] | None]] = []
    for name, array in arrays.items():
        changes.append((name, None))
        changes.append((name, np.zeros(array.shape, dtype=np.float16)))
        changes.append((name, array.reshape(*array.shape, 1)))
        if len(array) > 1 and not name.endswith("living"):
            changes.append((name, array[:-1]))
        whole = array.dtype in (np.int32, np.int64) and len(array) > 0
        if whole and not name.endswith(ANY_NUMBER):
            changes.append((name, array + np.array(10**6, dtype=array.dtype)))
            changes.append((name, array - np.array(10**6, dtype=array.dtype)))
    return changes


def test_malformed_arrays_are_refused() -> None:
    arrays = sample().to_arrays()
    changes = _broken(arrays)
    assert len(changes) > 200
    for name, changed in changes:
        if name.endswith(".living") and changed is None:
            continue  # none were removed
        broken = {key: value for key, value in arrays.items() if key != name}
        if changed is not None:
            broken[name] = changed
        with pytest.raises(ValueError, match=r"."):
            CollectionIndex.from_arrays(HNSW, broken, POLICY)


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_cut_ann_index_is_refused(cut: int) -> None:
    arrays = sample().to_arrays()
    name = "0.dense.ann"
    arrays[name] = arrays[name][:cut].copy()
    with pytest.raises(ValueError, match=name):
        CollectionIndex.from_arrays(HNSW, arrays, POLICY)


def test_index_of_another_dimension_is_refused() -> None:
    arrays = index_of([document("a")]).to_arrays()
    other = CONFIG.model_copy(update={"dimensions": DIMENSIONS + 1})
    with pytest.raises(ValueError, match="not of 9"):
        CollectionIndex.from_arrays(other, arrays)


def test_arrays_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="format: missing"):
        CollectionIndex.from_arrays(CONFIG, {"weights": np.zeros(3)})
