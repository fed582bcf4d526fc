"""What a search gives: hits with their scores and ranks, in an order that nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.generation import Generation, hits_needed
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    Comparison,
    Hit,
    IndexedDocument,
    Metric,
    Operator,
    Query,
    SearchMode,
    SearchOptions,
)
from services.runtime.errors import InvalidRequest
from tests.unit.retrieval.index.reference import (
    CONFIG,
    DIMENSIONS,
    WORDS,
    document,
    index_of,
    random_documents,
    unit_vectors,
)


def some_query(seed: int = 7, text: str = "red castle river") -> Query:
    return Query(text, unit_vectors(np.random.default_rng(seed), DIMENSIONS))


def names(hits: list[Hit]) -> list[tuple[str, int]]:
    return [(hit.document.id, hit.ordinal) for hit in hits]


def facts(hits: list[Hit]) -> list[tuple[object, ...]]:
    return [
        (*names([h])[0], h.score, h.dense_score, h.sparse_score, h.dense_rank, h.sparse_rank)
        for h in hits
    ]


def in_pieces(documents: list[IndexedDocument], sizes: list[int]) -> Generation:
    index = CollectionIndex(CONFIG, SegmentPolicy(inline_rows=1))
    rest = list(documents)
    while rest:
        size = sizes.pop() if sizes else 7
        index.apply([Put(one) for one in rest[:size]])
        rest = rest[size:]
    return index.generation


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 5),
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 20), max_size=6),
    st.sampled_from(SearchMode),
    st.integers(1, 30),
)
def test_hits_are_the_same_bits_in_any_segments(
    seed: int, random: object, sizes: list[int], mode: SearchMode, k: int
) -> None:
    documents = random_documents(np.random.default_rng(seed), 40)
    # copies: equal in every score, told apart by their names alone
    documents += [
        document(f"copy-{at}", ["red castle"] * 2, np.repeat(documents[0].vectors[:1], 2, axis=0))
        for at in range(12)
    ]
    options = SearchOptions(mode, k, num_candidates=k)
    queries = [some_query(), Query("castle", documents[0].vectors[0])]
    whole = index_of(documents).generation.candidates(queries, options)
    random.shuffle(documents)  # type: ignore[attr-defined]
    pieces = in_pieces(documents, sizes).candidates(queries, options)
    assert [facts(hits) for hits in pieces] == [facts(hits) for hits in whole]


def test_batch_gives_what_single_searches_give() -> None:
    generation = index_of(random_documents(np.random.default_rng(1), 60)).generation
    queries = [some_query(seed, text) for seed, text in enumerate(WORDS)]
    for mode in SearchMode:
        options = SearchOptions(mode, k=5)
        together = generation.candidates(queries, options)
        alone = [generation.candidates([query], options)[0] for query in queries]
        assert [facts(hits) for hits in together] == [facts(hits) for hits in alone]


def test_hybrid_hits_have_the_scores_and_ranks_of_both_rankings() -> None:
    generation = index_of(random_documents(np.random.default_rng(1), 60)).generation
    query = some_query()
    each = {
        mode: generation.candidates([query], SearchOptions(mode, k=20, num_candidates=20))[0]
        for mode in (SearchMode.DENSE, SearchMode.SPARSE)
    }
    options = SearchOptions(
        SearchMode.HYBRID, 20, dense_weight=2.0, sparse_weight=0.5, rrf_k=10, num_candidates=20
    )
    (hits,) = generation.candidates([query], options, limit=40)
    dense = {name: at for at, name in enumerate(names(each[SearchMode.DENSE]), 1)}
    sparse = {name: at for at, name in enumerate(names(each[SearchMode.SPARSE]), 1)}
    assert set(names(hits)) == set(dense) | set(sparse)
    for hit, name in zip(hits, names(hits), strict=True):
        assert hit.dense_rank == dense.get(name)
        assert hit.sparse_rank == sparse.get(name)
        expected = (2.0 / (10 + dense[name]) if name in dense else 0.0) + (
            0.5 / (10 + sparse[name]) if name in sparse else 0.0
        )
        assert hit.score == pytest.approx(expected)
        # found by words alone, too
        assert hit.dense_score == pytest.approx(float(hit.vector @ query.vector), abs=1e-6)
        assert (hit.sparse_score is None) is (name not in sparse)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_min_score_is_of_the_vectors_in_hybrid_mode() -> None:
    generation = index_of(random_documents(np.random.default_rng(1), 60)).generation
    options = SearchOptions(SearchMode.HYBRID, 20, num_candidates=20)
    (every,) = generation.candidates([some_query()], options, limit=100)
    bound = sorted(hit.dense_score for hit in every)[len(every) // 2]
    bounded = SearchOptions(SearchMode.HYBRID, 20, num_candidates=20, min_score=bound)
    (hits,) = generation.candidates([some_query()], bounded, limit=100)
    assert names(hits) == names([hit for hit in every if hit.dense_score >= bound])


def test_limit_cuts_hits_and_not_candidates() -> None:
    generation = index_of(random_documents(np.random.default_rng(1), 60)).generation
    options = SearchOptions(SearchMode.HYBRID, 3, num_candidates=30)
    (every,) = generation.candidates([some_query()], options)
    (few,) = generation.candidates([some_query()], options, limit=3)
    assert len(every) == 30
    assert facts(few) == facts(every[:3])


@pytest.mark.parametrize(
    ("options", "reranks", "needed"),
    [
        (SearchOptions(SearchMode.DENSE, 10), False, 10),
        (SearchOptions(SearchMode.DENSE, 10), True, 50),
        (SearchOptions(SearchMode.DENSE, 10, mmr_lambda=0.5), False, 50),
        (SearchOptions(SearchMode.DENSE, 80, max_per_document=1), False, 80),
    ],
)
def test_more_hits_are_needed_where_some_are_passed_over(
    options: SearchOptions, reranks: bool, needed: int
) -> None:
    assert hits_needed(options, reranks=reranks) == needed


@pytest.mark.parametrize("mode", SearchMode)
def test_empty_generation_finds_nothing(mode: SearchMode) -> None:
    generation = CollectionIndex(CONFIG).generation
    assert generation.candidates([some_query(), some_query()], SearchOptions(mode)) == [[], []]
    assert generation.document_ids(limit=5) == []
    assert generation.get("a") is None


@pytest.mark.parametrize("mode", SearchMode)
def test_no_queries_have_no_answers(mode: SearchMode) -> None:
    generation = index_of([document("a")]).generation
    assert generation.candidates([], SearchOptions(mode)) == []


@pytest.mark.parametrize("mode", SearchMode)
def test_documents_without_chunks_are_kept_and_never_found(mode: SearchMode) -> None:
    generation = index_of([document("empty", []), document("full", ["red"])]).generation
    (hits,) = generation.candidates([some_query()], SearchOptions(mode))
    assert names(hits) == [("full", 0)]
    assert generation.get("empty").num_chunks == 0
    assert generation.get("empty").vectors.shape == (0, DIMENSIONS)


def test_query_of_any_length_is_a_direction_for_cosine() -> None:
    generation = index_of(random_documents(np.random.default_rng(1), 20)).generation
    options = SearchOptions(SearchMode.DENSE)
    query = some_query()
    (hits,) = generation.candidates([query], options)
    (scaled,) = generation.candidates([Query(vector=5 * query.vector)], options)
    assert names(scaled) == names(hits)
    assert scaled[0].score == pytest.approx(hits[0].score, rel=1e-5)


def test_dot_scores_grow_with_the_vectors() -> None:
    config = CONFIG.model_copy(update={"metric": Metric.DOT})
    short = np.ones((1, DIMENSIONS), dtype=np.float32)
    index = index_of([document("s", vectors=short), document("l", vectors=3 * short)], config)
    options = SearchOptions(SearchMode.DENSE)
    (hits,) = index.generation.candidates([Query(vector=2 * short[0])], options)
    assert [(hit.document.id, hit.score) for hit in hits] == [("l", 48.0), ("s", 16.0)]


def test_zero_vectors_score_zero() -> None:
    zero = np.zeros((1, DIMENSIONS), dtype=np.float32)
    index = index_of([document("zero", vectors=zero), document("other")])
    options = SearchOptions(SearchMode.DENSE)
    (hits,) = index.generation.candidates([Query(vector=zero[0])], options)
    assert [(hit.document.id, hit.score) for hit in hits] == [("other", 0.0), ("zero", 0.0)]


@pytest.mark.parametrize(
    ("query", "mode", "field"),
    [
        (Query("text"), SearchMode.DENSE, "vector"),
        (Query("text"), SearchMode.HYBRID, "vector"),
        (Query(vector=np.ones(DIMENSIONS, np.float32)), SearchMode.HYBRID, "text"),
        (Query(vector=np.ones(DIMENSIONS, np.float32)), SearchMode.SPARSE, "text"),
        (Query("t", np.ones(DIMENSIONS - 1, np.float32)), SearchMode.DENSE, "vector"),
        (Query("t", np.full(DIMENSIONS, np.nan, np.float32)), SearchMode.DENSE, "vector"),
        (Query("t", np.full(DIMENSIONS, np.inf, np.float32)), SearchMode.SPARSE, "vector"),
    ],
)
def test_query_that_does_not_fit_is_refused(query: Query, mode: SearchMode, field: str) -> None:
    generation = index_of([document("a")]).generation
    with pytest.raises(InvalidRequest) as refused:
        generation.candidates([query], SearchOptions(mode))
    assert refused.value.field == field


def test_document_ids_come_in_pages_in_order() -> None:
    index = index_of(random_documents(np.random.default_rng(0), 60), inline_rows=16)
    index.apply([Remove(("doc-0003", "doc-0007"))])
    expected = [f"doc-{at:04d}" for at in range(60) if at not in (3, 7)]
    pages: list[str] = []
    while page := index.generation.document_ids(after=pages[-1] if pages else "", limit=7):
        pages += page
    assert pages == expected
    condition = Comparison("number", Operator.GTE, (50.0,))
    assert index.generation.document_ids(limit=3, after="doc-0052", filter=condition) == [
        "doc-0053",
        "doc-0054",
        "doc-0055",
    ]


def test_ids_and_texts_of_any_characters_are_kept() -> None:
    odd = ["ä", "𝄞 clef", "\ud800 half a pair", "z", "\uffff"]
    index = index_of([document(name, [name]) for name in odd], inline_rows=1)
    assert index.generation.document_ids(limit=9) == sorted(odd)
    for name in odd:
        assert index.generation.get(name).chunks[0].text == name


def test_memory_counts_vectors_and_texts() -> None:
    generation = index_of([document("a", ["x" * 1000] * 3)]).generation
    assert generation.memory_bytes > 3 * (1000 + 4 * DIMENSIONS)
