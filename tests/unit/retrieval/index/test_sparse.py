"""BM25 equals bm25s over the living chunks, whatever the segments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
from bm25s.tokenization import Tokenizer

from services.retrieval.index.accumulating import accumulator
from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    CollectionConfig,
    Comparison,
    Hit,
    IndexedDocument,
    Operator,
    Query,
    SearchMode,
    SearchOptions,
    SparseConfig,
)
from tests.unit.retrieval.index.reference import (
    CONFIG,
    DIMENSIONS,
    WORDS,
    document,
    index_of,
    random_documents,
)

XQUAD = Path("../shared/data/xquad-en/xquad.en.json")
SPARSE = SearchOptions(SearchMode.SPARSE, k=1000)


def search(index: CollectionIndex, text: str, options: SearchOptions = SPARSE) -> list[Hit]:
    (hits,) = index.generation.candidates([Query(text)], options)
    return hits


def scores_by_bm25s(
    living: list[IndexedDocument], query: str, config: SparseConfig
) -> dict[tuple[str, int], float]:
    chunks = [(one.info.id, at) for one in living for at in range(len(one.chunks))]
    tokenizer = Tokenizer(stopwords="en", stemmer=Stemmer.Stemmer("english"))
    texts = [chunk.text for one in living for chunk in one.chunks]
    rows = tokenizer.tokenize(texts, show_progress=False, return_as="string", allow_empty=False)
    words = tokenizer.tokenize([query], show_progress=False, return_as="string", update_vocab=True)
    reference = bm25s.BM25(k1=config.k1, b=config.b, method="lucene")
    reference.index(rows, show_progress=False)
    known = [word for word in words[0] if word in reference.vocab_dict]
    scores = reference.get_scores(known) if known else np.zeros(len(chunks))
    return {chunk: score for chunk, score in zip(chunks, scores.tolist(), strict=True) if score > 0}


@pytest.mark.parametrize("sparse", [SparseConfig(), SparseConfig(k1=2.0, b=0.1)])
@pytest.mark.parametrize("merged", [False, True])
def test_scores_equal_bm25s_over_living_chunks(sparse: SparseConfig, merged: bool) -> None:
    generator = np.random.default_rng(3)
    documents = random_documents(generator, 60)
    config = CollectionConfig(dimensions=DIMENSIONS, sparse=sparse)
    index = CollectionIndex(config, SegmentPolicy(inline_rows=16))
    for first in range(0, 60, 10):
        index.apply([Put(one) for one in documents[first : first + 10]])
    gone = [f"doc-{number:04d}" for number in range(0, 60, 7)]
    index.apply([Remove(tuple(gone))])
    index.apply([Put(document("doc-0001", ["a castle of stones, stones and more stone"]))])
    assert index.generation.num_segments > 1
    if merged:
        merge = index.plan_merge(everything=True)
        merge.run()
        index.install(merge)
    stored = {one.info.id: one for one in documents if one.info.id not in gone}
    stored["doc-0001"] = document("doc-0001", ["a castle of stones, stones and more stone"])
    for query in ("castle", "the red rivers", "stone stone mountain winter", "unheard of light"):
        expected = scores_by_bm25s(list(stored.values()), query, sparse)
        hits = search(index, query)
        found = {(hit.document.id, hit.ordinal): hit.sparse_score for hit in hits}
        assert found.keys() == expected.keys()
        for key, score in expected.items():
            assert found[key] == pytest.approx(score, rel=2e-5)
        assert [hit.score for hit in hits] == sorted(found.values(), reverse=True)


def test_scores_are_the_same_bits_in_any_segments() -> None:
    documents = random_documents(np.random.default_rng(5), 80)
    whole = index_of(documents)
    pieces = CollectionIndex(CONFIG, SegmentPolicy(inline_rows=4))
    for first in (50, 0, 30, 70, 20):
        size = {50: 20, 0: 20, 30: 20, 70: 10, 20: 10}[first]
        pieces.apply([Put(one) for one in documents[first : first + size]])
    extra = document("x", [" ".join(WORDS)] * 30)
    pieces.apply([Put(extra)])
    pieces.apply([Remove(("x",))])
    for query in (" ".join(WORDS), "red", "castle castle green"):
        one, other = search(whole, query), search(pieces, query)
        assert [(h.document.id, h.ordinal, h.score) for h in one] == [
            (h.document.id, h.ordinal, h.score) for h in other
        ]


def test_filter_narrows_the_hits_and_not_the_statistics() -> None:
    index = index_of(random_documents(np.random.default_rng(5), 40))
    condition = Comparison("number", Operator.LT, (10.0,))
    everywhere = {(h.document.id, h.ordinal): h.score for h in search(index, "red castle")}
    options = SearchOptions(SearchMode.SPARSE, k=1000, filter=condition)
    narrowed = {(h.document.id, h.ordinal): h.score for h in search(index, "red castle", options)}
    assert narrowed == {key: s for key, s in everywhere.items() if key[0] < "doc-0010"}


@pytest.mark.parametrize("query", ["zebra", "", "the of and", "!?"])
def test_query_without_known_words_finds_nothing(query: str) -> None:
    assert search(index_of([document("a", ["red stone"])]), query) == []


def test_known_and_unknown_words_together_find_by_the_known() -> None:
    index = index_of([document("a", ["red stone"]), document("b", ["blue sea"])])
    (hit,) = search(index, "zebra stones")
    assert hit.document.id == "a"
    assert (hit.dense_score, hit.dense_rank, hit.sparse_rank) == (None, None, 1)


def test_best_few_are_those_of_the_whole_ranking() -> None:
    index = index_of(random_documents(np.random.default_rng(9), 100), inline_rows=8)
    every = search(index, "red castle river")
    few = search(index, "red castle river", SearchOptions(SearchMode.SPARSE, 7, num_candidates=7))
    assert [(h.document.id, h.ordinal) for h in few] == [
        (h.document.id, h.ordinal) for h in every[:7]
    ]


def test_min_score_compares_bm25_in_sparse_mode() -> None:
    index = index_of(random_documents(np.random.default_rng(9), 50))
    every = search(index, "red castle")
    bound = every[len(every) // 2].score
    options = SearchOptions(SearchMode.SPARSE, k=1000, min_score=bound)
    assert len(search(index, "red castle", options)) == sum(h.score >= bound for h in every)


def test_words_of_title_are_found() -> None:
    one = document("a", ["red stone"])
    titled = replace(one, info=replace(one.info, title="Winter palace"))
    assert search(index_of([titled]), "palaces")


@pytest.mark.skipif(not XQUAD.exists(), reason=f"{XQUAD} is not there")
def test_paragraphs_of_xquad_are_found_by_their_questions() -> None:
    articles = json.loads(XQUAD.read_text())["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    index = index_of([document(f"{at:03d}", [p["context"]]) for at, p in enumerate(paragraphs)])
    asked = [(qa["question"], at) for at, p in enumerate(paragraphs) for qa in p["qas"]]
    options = SearchOptions(SearchMode.SPARSE, num_candidates=10)
    found = index.generation.candidates([Query(question) for question, _ in asked], options)
    ranks = [
        next((at for at, hit in enumerate(hits, 1) if int(hit.document.id) == expected), 99)
        for hits, (_, expected) in zip(found, asked, strict=True)
    ]
    assert np.mean([rank == 1 for rank in ranks]) >= 0.918
    assert np.mean([rank <= 5 for rank in ranks]) >= 0.985
    assert np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]) >= 0.948


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_compiled_loop_equals_numpy(dtype: type[np.unsignedinteger]) -> None:
    generator = np.random.default_rng(0)
    rows = np.flatnonzero(generator.random(500) < 0.4).astype(np.int32)
    counts = generator.integers(1, 200, len(rows)).astype(dtype)
    norms = generator.random(500, dtype=np.float32) + np.float32(0.3)
    weight = np.float32(1.7)
    for array in (rows, counts, norms):
        array.flags.writeable = False  # as arrays of a snapshot may be
    scores = np.linspace(0, 1, 500, dtype=np.float32)
    expected = scores.copy()
    as_float = counts.astype(np.float32)
    expected[rows] += weight * (as_float / (as_float + norms[rows]))
    accumulator()(scores, rows, counts, norms, weight)
    np.testing.assert_array_equal(scores, expected)
