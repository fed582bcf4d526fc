"""Filters inside the search equal a loop over the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.filters import filter_key
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    IndexedDocument,
    MetadataValue,
    Not,
    Operator,
    Query,
    SearchMode,
    SearchOptions,
)
from services.runtime.errors import InvalidRequest
from tests.unit.retrieval.index.reference import (
    CONFIG,
    DIMENSIONS,
    document,
    effective,
    holds,
    index_of,
    unit_vectors,
)

FIELDS = ["a", "b", "c"]
strings = st.sampled_from(["", "x", "y", "ä", "𝄞", "zz", "id-3", "id-3.txt"])
numbers = st.sampled_from([-1.5, -0.0, 0.0, 1.0, 2.0, float("inf"), float("nan")])
values: st.SearchStrategy[MetadataValue] = st.one_of(
    strings, numbers, st.booleans(), st.lists(strings, max_size=3).map(tuple)
)
metadata = st.dictionaries(st.sampled_from(FIELDS), values, max_size=3)

_ONE_VALUE = [Operator.EQ, Operator.NE]
_ORDERS = [Operator.GT, Operator.GTE, Operator.LT, Operator.LTE]
fields = st.sampled_from([*FIELDS, "document_id", "file_name", "nowhere"])
comparisons = st.one_of(
    st.builds(lambda f: Comparison(f, Operator.EXISTS), fields),
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)),
        fields,
        st.sampled_from(_ONE_VALUE),
        st.one_of(strings, numbers, st.booleans()),
    ),
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)),
        fields,
        st.sampled_from(_ORDERS),
        st.one_of(strings, numbers),
    ),
    st.builds(
        lambda f, o, v: Comparison(f, o, tuple(v)),
        fields,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.one_of(
            st.lists(strings, min_size=1, max_size=3),
            st.lists(numbers, min_size=1, max_size=3),
            st.lists(st.booleans(), min_size=1, max_size=2),
        ),
    ),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=3).map(lambda several: AllOf(tuple(several))),
        st.lists(inner, max_size=3).map(lambda several: AnyOf(tuple(several))),
    ),
    max_leaves=5,
)
documents = st.lists(
    st.tuples(metadata, st.lists(metadata, min_size=1, max_size=3)), min_size=1, max_size=10
)


def _documents(drawn: list[tuple[dict, list[dict]]]) -> list[IndexedDocument]:
    return [
        document(f"id-{at}", [f"word number {at}"] * len(own), None, shared, own)
        for at, (shared, own) in enumerate(drawn)
    ]


@settings(max_examples=200, deadline=None)
@given(documents, filters, st.sets(st.integers(0, 9), max_size=4), st.booleans())
def test_filtered_search_equals_brute_force(
    drawn: list[tuple[dict, list[dict]]], condition: Filter, removed: set[int], merged: bool
) -> None:
    living = {one.info.id: one for one in _documents(drawn)}
    index = CollectionIndex(CONFIG, SegmentPolicy(inline_rows=3))
    for one in living.values():
        index.apply([Put(one)])
    gone = [f"id-{number}" for number in removed]
    index.apply([Remove(tuple(gone))])
    for document_id in gone:
        living.pop(document_id, None)
    if merged and (merge := index.plan_merge(everything=True)) is not None:
        merge.run()
        index.install(merge)
    query = unit_vectors(np.random.default_rng(1), DIMENSIONS)
    expected = sorted(
        (-float(np.add.reduce(one.vectors[ordinal] * query)), one.info.id, ordinal)
        for one in living.values()
        for ordinal in range(len(one.chunks))
        if holds(condition, effective(one, ordinal))
    )
    for mode in (SearchMode.DENSE, SearchMode.SPARSE, SearchMode.HYBRID):
        options = SearchOptions(mode, k=50, filter=condition)
        (hits,) = index.generation.candidates([Query("word", query)], options)
        found = [(-hit.dense_score, hit.document.id, hit.ordinal) for hit in hits]
        assert sorted(found) == expected
        assert mode is not SearchMode.DENSE or found == expected
    own = [
        one.info.id
        for one in living.values()
        if holds(
            condition,
            {**one.info.metadata, "document_id": one.info.id, "file_name": one.info.file_name},
        )
    ]
    assert index.generation.matching_documents(condition) == sorted(own)


def _refusal(condition: Filter) -> InvalidRequest:
    index = index_of(
        [
            document("a", metadata={"year": 2020.0, "name": "x", "draft": True}),
            document("b", metadata={"year": "soon"}, chunk_metadata=[{"tags": ("p", "q")}]),
        ]
    )
    with pytest.raises(InvalidRequest) as refused:
        index.generation.check_filter(condition)
    return refused.value


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Comparison("missing", Operator.EQ, ("x",)), "no document has the field 'missing'"),
        (Not(AllOf((Comparison("nope", Operator.EXISTS),))), "no document has the field 'nope'"),
        (Comparison("name", Operator.EQ, (1.0,)), "'name' is string: eq with a number"),
        (Comparison("draft", Operator.EQ, ("yes",)), "'draft' is bool: eq with a string"),
        (Comparison("tags", Operator.GT, ("p",)), "'tags' is string_list: gt with a string"),
        (Comparison("tags", Operator.EQ, (("p", "q"),)), "not with a list"),
        (Comparison("draft", Operator.GT, (True,)), "gt compares numbers or strings"),
        (Comparison("year", Operator.EQ, ()), "exactly one value, not 0"),
        (Comparison("year", Operator.GT, (1.0, 2.0)), "exactly one value, not 2"),
        (Comparison("year", Operator.IN, ()), "at least one value"),
        (Comparison("year", Operator.IN, (1.0, "x")), "several types: number, string"),
        (Comparison("year", Operator.EXISTS, (1.0,)), "exists takes no values"),
        (Comparison("document_id", Operator.EQ, (1.0,)), "'document_id' is string"),
    ],
)
def test_filter_that_makes_no_sense_is_refused(condition: Filter, message: str) -> None:
    refused = _refusal(condition)
    assert message in refused.message
    assert refused.field == "filter"


def test_field_of_two_types_may_be_compared_with_both() -> None:
    index = index_of([document("a", metadata={"v": 1.0}), document("b", metadata={"v": "one"})])
    for value, expected in ((1.0, ["a"]), ("one", ["b"])):
        condition = Comparison("v", Operator.EQ, (value,))
        index.generation.check_filter(condition)
        assert index.generation.matching_documents(condition) == expected


def test_field_that_only_removed_documents_had_is_unknown() -> None:
    index = index_of([document("a", metadata={"v": 1.0}), document("b")])
    condition = Comparison("v", Operator.EQ, (1.0,))
    index.generation.check_filter(condition)
    with pytest.raises(InvalidRequest):
        index.apply([Remove(("a",))]).check_filter(condition)


def test_field_that_only_chunks_have_chooses_no_documents() -> None:
    rows = document("a", metadata={"kind": "table"}, chunk_metadata=[{"price": 5.0}])
    generation = index_of([rows]).generation
    condition = Comparison("price", Operator.NE, (5.0,))
    generation.check_filter(condition)
    with pytest.raises(InvalidRequest, match="no document has the field 'price'"):
        generation.check_filter(condition, of_documents=True)
    generation.check_filter(Comparison("kind", Operator.NE, ("x",)), of_documents=True)
    generation.check_filter(Comparison("document_id", Operator.NE, ("x",)), of_documents=True)


def test_any_field_may_be_asked_for_in_an_empty_collection() -> None:
    CollectionIndex(CONFIG).generation.check_filter(Comparison("x", Operator.EQ, (1.0,)))


def test_values_of_a_chunk_override_its_documents() -> None:
    index = index_of(
        [document("a", ["one", "two"], metadata={"v": "doc"}, chunk_metadata=[{}, {"v": 7.0}])]
    )
    for value, ordinals in (("doc", [0]), (7.0, [1])):
        options = SearchOptions(SearchMode.DENSE, filter=Comparison("v", Operator.EQ, (value,)))
        query = Query(vector=unit_vectors(np.random.default_rng(0), DIMENSIONS))
        (hits,) = index.generation.candidates([query], options)
        assert [hit.ordinal for hit in hits] == ordinals


def test_filter_keys_tell_types_apart() -> None:
    one, true = (Comparison("x", Operator.EQ, (value,)) for value in (1.0, True))
    assert one == true  # which is why there are keys
    assert filter_key(Not(one)) != filter_key(Not(true))
    assert filter_key(AllOf((one,))) != filter_key(AnyOf((one,)))
    assert filter_key(AllOf((one,))) == filter_key(AllOf((Comparison("x", Operator.EQ, (1.0,)),)))
