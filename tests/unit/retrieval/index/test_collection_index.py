"""An index against a plain dict of documents, whatever happens to it in whatever order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.retrieval.index.collection_index import (
    CollectionIndex,
    Merge,
    Put,
    Remove,
    check_config,
)
from services.retrieval.index.generation import Generation
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    CollectionConfig,
    IndexConfig,
    IndexedDocument,
    IndexType,
    SparseConfig,
)
from services.runtime.errors import InvalidRequest
from tests.unit.retrieval.index.reference import (
    CONFIG,
    DIMENSIONS,
    WORDS,
    document,
    index_of,
    random_documents,
)

SMALL = SegmentPolicy(inline_rows=8, fanout=2)
IDS = [f"doc-{number}" for number in range(12)]

documents = st.builds(
    lambda document_id, texts, number: document(
        document_id, texts, metadata={"number": float(number), "even": number % 2 == 0}
    ),
    st.sampled_from(IDS),
    st.lists(st.sampled_from(WORDS), min_size=0, max_size=4),
    st.integers(0, 5),
)
changes = st.lists(
    st.one_of(
        documents.map(Put),
        st.lists(st.sampled_from(IDS), min_size=1, max_size=4).map(lambda ids: Remove(tuple(ids))),
    ),
    max_size=6,
)
steps = st.lists(
    st.one_of(
        changes,
        st.sampled_from(["plan", "plan everything", "run", "install", "abandon", "reload"]),
    ),
    max_size=25,
)


def applied(model: dict[str, IndexedDocument], batch: list[Put | Remove]) -> None:
    for change in batch:
        if isinstance(change, Put):
            model[change.document.info.id] = change.document
        else:
            for document_id in change.document_ids:
                model.pop(document_id, None)


def assert_is(generation: Generation, model: dict[str, IndexedDocument]) -> None:
    assert generation.num_documents == len(model)
    assert generation.num_chunks == sum(len(one.chunks) for one in model.values())
    assert generation.document_ids(limit=100) == sorted(model)
    for document_id in IDS:
        stored, expected = generation.get(document_id), model.get(document_id)
        if expected is None:
            assert stored is None
            assert generation.content_hash(document_id) is None
            continue
        assert stored is not None
        assert stored.info == expected.info
        assert stored.chunks == expected.chunks
        assert stored.num_chunks == len(expected.chunks)
        np.testing.assert_array_equal(stored.vectors, expected.vectors)
        assert generation.content_hash(document_id) == expected.info.content_hash
    types = {"number": frozenset({"number"}), "even": frozenset({"bool"})}
    assert generation.fields == (types if model else {})


@settings(max_examples=120, deadline=None)
@given(steps)
def test_index_equals_a_dict_after_any_changes_and_merges(steps: list[object]) -> None:
    index = CollectionIndex(CONFIG, SMALL)
    model: dict[str, IndexedDocument] = {}
    merge: Merge | None = None
    has_run = False
    for step in steps:
        if isinstance(step, list):
            before, number = index.generation, index.generation.number
            held = dict(model)
            applied(model, step)
            after = index.apply(step)
            assert after.number == number + bool(step)
            assert_is(before, held)  # who reads the old one does not notice
        elif step in ("plan", "plan everything") and merge is None:
            merge, has_run = index.plan_merge(everything=step == "plan everything"), False
        elif step == "run" and merge is not None:
            merge.run()
            has_run = True
        elif step == "install" and merge is not None and has_run:
            index.install(merge)
            merge = None
        elif step == "abandon" and merge is not None:
            index.abandon(merge)
            merge = None
        elif step == "reload":
            number = index.generation.number
            index, merge = CollectionIndex.from_arrays(CONFIG, index.to_arrays(), SMALL), None
            assert index.generation.number == number
        assert_is(index.generation, model)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(changes, min_size=5, max_size=30))
def test_merging_in_another_thread_loses_nothing(batches: list[list[Put | Remove]]) -> None:
    index = CollectionIndex(CONFIG, SMALL)
    model: dict[str, IndexedDocument] = {}
    with ThreadPoolExecutor(1) as thread:
        running = None
        for batch in batches:
            if running is None and (merge := index.plan_merge(everything=True)) is not None:
                running = (merge, thread.submit(merge.run))
            applied(model, batch)
            index.apply(batch)
            if running is not None and running[1].done():
                index.install(running[0])
                running = None
            assert_is(index.generation, model)
        if running is not None:
            running[1].result()
            assert_is(index.install(running[0]), model)


def test_put_replaces_a_document_at_once() -> None:
    index = index_of([document("a", ["one", "two", "three"])])
    generation = index.apply([Put(document("a", ["four"]))])
    assert [chunk.text for chunk in generation.get("a").chunks] == ["four"]
    assert generation.num_chunks == 1


def test_last_change_of_a_batch_counts() -> None:
    index = CollectionIndex(CONFIG)
    index.apply([Put(document("a")), Remove(("a",)), Put(document("b", ["x"])), Remove(("c",))])
    index.apply([Remove(("b",)), Put(document("b", ["y"]))])
    assert index.generation.document_ids(limit=9) == ["b"]
    assert index.generation.get("b").chunks[0].text == "y"


def test_apply_without_changes_is_no_new_generation() -> None:
    index = index_of([document("a")])
    assert index.apply([]) is index.generation
    assert index.generation.number == 1


def test_vectors_of_wrong_shape_are_refused_and_change_nothing() -> None:
    index = index_of([document("a")])
    before = index.generation
    wrong = np.zeros((1, DIMENSIONS + 1), dtype=np.float32)
    with pytest.raises(ValueError, match="'b': vectors"):
        index.apply([Remove(("a",)), Put(document("b", vectors=wrong))])
    assert index.generation is before


def test_single_puts_leave_few_segments() -> None:
    index = CollectionIndex(CONFIG, SegmentPolicy(inline_rows=64, fanout=4))
    for one in random_documents(np.random.default_rng(0), 400):
        index.apply([Put(one)])
        while (merge := index.plan_merge()) is not None:
            merge.run()
            index.install(merge)
    assert index.generation.num_documents == 400
    assert index.generation.num_segments <= 16


def test_merge_is_planned_once_segments_of_a_size_are_many() -> None:
    index = CollectionIndex(CONFIG, SegmentPolicy(inline_rows=4, fanout=4))
    for batch in range(4):
        assert index.plan_merge() is None
        index.apply([Put(document(f"{batch}-{number}")) for number in range(5)])
    merge = index.plan_merge()
    assert merge is not None
    assert merge.num_rows == 20
    assert index.plan_merge() is None  # one at a time
    merge.run()
    assert index.install(merge).num_segments == 1


def test_segment_with_many_removed_rows_is_rewritten() -> None:
    index = index_of(random_documents(np.random.default_rng(0), 50))
    full = index.generation.memory_bytes
    index.apply([Remove(tuple(f"doc-{number:04d}" for number in range(40)))])
    merge = index.plan_merge()
    merge.run()
    assert index.install(merge).memory_bytes < full / 2
    assert index.plan_merge() is None


def test_index_with_nothing_left_has_no_segments() -> None:
    index = index_of(random_documents(np.random.default_rng(0), 5))
    generation = index.apply([Remove(tuple(index.generation.document_ids(limit=9)))])
    assert (generation.num_segments, generation.num_chunks, generation.fields) == (0, 0, {})
    assert index.plan_merge(everything=True) is None


def test_merge_of_segments_that_went_meanwhile_leaves_nothing() -> None:
    index = index_of([document("a"), document("b")])
    index.apply([Remove(("a",))])
    merge = index.plan_merge(everything=True)
    index.apply([Remove(("b",))])
    merge.run()
    assert index.install(merge).num_documents == 0


def test_installing_what_was_not_planned_is_refused() -> None:
    index = index_of([document("a"), document("b")])
    index.apply([Remove(("a",))])
    merge = index.plan_merge(everything=True)
    with pytest.raises(ValueError, match="has not run"):
        index.install(merge)
    merge.run()
    index.abandon(merge)
    with pytest.raises(ValueError, match="planned last"):
        index.install(merge)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (
            CollectionConfig(dimensions=8, sparse=SparseConfig(language="klingon")),
            "config.sparse.language",
        ),
        (
            CollectionConfig(
                dimensions=8, index=IndexConfig(type=IndexType.IVF_PQ, pq_num_subvectors=3)
            ),
            "config.index_parameters.pq_num_subvectors",
        ),
        (
            CollectionConfig(dimensions=8, index=IndexConfig(pq_num_subvectors=4)),
            "config.index_parameters.pq_num_subvectors",
        ),
    ],
)
def test_config_that_no_index_can_have_is_refused(config: CollectionConfig, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_config(config)
    assert refused.value.field == field
    with pytest.raises(InvalidRequest):
        CollectionIndex(config)
