"""Dense search: flat equals FAISS, ANN finds nearly all, and every score is exact."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from services.retrieval.index.collection_index import CollectionIndex, Put, Remove
from services.retrieval.index.dense import DenseIndex, exact_scores, index_type_for
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import IndexConfig, IndexType, Vectors
from tests.unit.retrieval.index.reference import CONFIG, document, unit_vectors

POLICY = SegmentPolicy(min_ann_rows=500, exact_rows=50, exact_fraction=0.02, num_threads=1)
FLAT = IndexConfig(type=IndexType.FLAT)
ANN = [
    IndexConfig(type=IndexType.HNSW),
    IndexConfig(type=IndexType.IVF, num_lists=64),
    IndexConfig(type=IndexType.IVF_PQ, num_lists=32, pq_num_subvectors=8),
    IndexConfig(type=IndexType.IVF_PQ, num_lists=32),
]


def clustered(num_rows: int, dimensions: int, *, unit: bool = True, seed: int = 0) -> Vectors:
    """Around 50 centres, as texts are around topics; lengths vary up to 3-fold unless `unit`."""
    generator = np.random.default_rng(seed)
    centres = unit_vectors(np.random.default_rng(99), 50, dimensions)
    vectors = centres[generator.integers(0, 50, num_rows)]
    vectors = vectors + 0.6 * unit_vectors(generator, num_rows, dimensions)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if not unit:
        vectors *= generator.uniform(0.5, 1.5, (num_rows, 1))
    return vectors.astype(np.float32)


def recall(index: DenseIndex, config: IndexConfig, queries: Vectors, allowed=None) -> float:
    """Share of the 10 best by brute force that the index finds; checks the scores, too."""
    found = index.search(queries, 10, allowed, config, POLICY)
    hits = 0
    for query, (rows, scores) in zip(queries, found, strict=True):
        exact = index.vectors @ query
        np.testing.assert_allclose(scores, exact[rows], atol=1e-5)
        assert (np.diff(scores) <= 0).all()
        if allowed is not None:
            assert allowed[rows].all()
            exact = np.where(allowed, exact, -np.inf)
        hits += len(set(np.argsort(-exact)[:10].tolist()) & set(rows.tolist()))
    return hits / (10 * len(queries))


@pytest.mark.parametrize("num_queries", [1, 7, 32])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_flat_equals_faiss(num_queries: int, k: int) -> None:
    vectors = clustered(3000, 48)
    queries = clustered(num_queries, 48, seed=1)
    reference = faiss.IndexFlatIP(48)
    reference.add(vectors)
    expected_scores, expected_rows = reference.search(queries, k)
    found = DenseIndex.build(vectors, FLAT, POLICY).search(queries, k, None, FLAT, POLICY)
    for number, (rows, scores) in enumerate(found):
        np.testing.assert_array_equal(rows, expected_rows[number])
        np.testing.assert_allclose(scores, expected_scores[number], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_queries", [1, 9])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3])
def test_flat_with_allowed_rows_equals_faiss_over_those(num_queries: int, share: float) -> None:
    vectors, queries = clustered(40_000, 32), clustered(num_queries, 32, seed=1)
    allowed = np.random.default_rng(0).random(40_000) < share
    allowed[:5] = True
    reference = faiss.IndexFlatIP(32)
    reference.add(vectors[allowed])
    k = min(20, int(allowed.sum()))
    expected = np.flatnonzero(allowed)[reference.search(queries, k)[1]]
    found = DenseIndex.build(vectors, FLAT, POLICY).search(queries, 20, allowed, FLAT, POLICY)
    for number, (rows, _) in enumerate(found):
        np.testing.assert_array_equal(rows, expected[number])
        assert len(rows) == k


def test_flat_by_dot_product_with_vectors_of_any_length() -> None:
    vectors, queries = clustered(1000, 16, unit=False), clustered(4, 16, seed=1, unit=False)
    assert recall(DenseIndex.build(vectors, FLAT, POLICY), FLAT, queries) == 1.0


@pytest.mark.parametrize("config", ANN, ids=lambda config: str(config.type))
@pytest.mark.parametrize("unit", [True, False], ids=["cosine", "dot"])
def test_ann_index_finds_nearly_all(config: IndexConfig, unit: bool) -> None:
    index = DenseIndex.build(clustered(12_000, 32, unit=unit), config, POLICY)
    assert index.type is config.type
    queries = clustered(50, 32, seed=1, unit=unit)
    assert recall(index, config, queries) >= 0.9
    for share in (0.7, 0.2, 0.05, 0.001):
        allowed = np.random.default_rng(3).random(index.num_rows) < share
        assert recall(index, config, queries, allowed) >= 0.9
    # a filter that keeps one topic of fifty
    near = index.vectors @ queries[0] > 0.5
    assert recall(index, config, queries[:1], near) >= 0.9


@pytest.mark.parametrize("config", ANN, ids=lambda config: str(config.type))
def test_ann_index_is_searched_alike_by_many_threads(config: IndexConfig) -> None:
    index = DenseIndex.build(clustered(11_000, 16), config, POLICY)
    queries = clustered(20, 16, seed=1)
    allowed = np.arange(11_000) % 3 > 0

    def search(number: int) -> list[list[int]]:
        mask = allowed if number % 2 else None
        return [rows.tolist() for rows, _ in index.search(queries, 10, mask, config, POLICY)]

    alone = [search(0), search(1)]
    with ThreadPoolExecutor(4) as threads:
        for number, rows in enumerate(threads.map(search, range(16))):
            assert rows == alone[number % 2]


@pytest.mark.parametrize("kind", [IndexType.HNSW, IndexType.IVF])
def test_ann_index_with_zero_vectors_keeps_them_below_positive_scores(kind: IndexType) -> None:
    vectors = clustered(2000, 16)
    vectors[::5] = 0
    config = IndexConfig(type=kind, num_lists=20 if kind is IndexType.IVF else None)
    index = DenseIndex.build(vectors, config, POLICY)
    assert index.ann is not None
    for rows, scores in index.search(clustered(10, 16, seed=1), 10, None, config, POLICY):
        assert (scores > 0).all()
        assert (rows % 5 > 0).all()


def test_copies_are_ordered_by_row_however_many_they_are() -> None:
    generator = np.random.default_rng(0)
    vectors = unit_vectors(generator, 500, 16)
    vectors[100:400] = vectors[100]
    index = DenseIndex.build(vectors, FLAT, POLICY)
    for number_of_queries in (1, 30):
        queries = np.repeat(vectors[100:101], number_of_queries, axis=0)
        for rows, _ in index.search(queries, 20, None, FLAT, POLICY):
            assert rows.tolist() == list(range(100, 120))
    allowed = np.arange(500) % 2 == 1
    ((rows, _),) = index.search(vectors[100:101], 20, allowed, FLAT, POLICY)
    assert rows.tolist() == list(range(101, 141, 2))


def test_zero_query_takes_the_first_rows() -> None:
    index = DenseIndex.build(clustered(300, 16), FLAT, POLICY)
    ((rows, scores),) = index.search(np.zeros((1, 16), np.float32), 5, None, FLAT, POLICY)
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert not scores.any()


def test_exact_score_does_not_depend_on_the_rows_around() -> None:
    vectors, query = clustered(20_000, 100), clustered(1, 100, seed=1)[0]
    every = exact_scores(vectors, query)
    for rows in (slice(0, 1), slice(17, 900), slice(16_000, 20_000, 3)):
        np.testing.assert_array_equal(exact_scores(vectors[rows], query), every[rows])


def test_search_that_allows_nothing_finds_nothing() -> None:
    index = DenseIndex.build(clustered(30, 8), FLAT, POLICY)
    ((rows, scores),) = index.search(clustered(1, 8), 5, np.zeros(30, dtype=np.bool_), FLAT, POLICY)
    assert (len(rows), len(scores)) == (0, 0)


@pytest.mark.parametrize(
    ("config", "rows", "expected"),
    [
        (IndexConfig(), 200_000, IndexType.FLAT),
        (IndexConfig(), 200_001, IndexType.HNSW),
        (FLAT, 10**7, IndexType.FLAT),
        (IndexConfig(type=IndexType.HNSW), 9_999, IndexType.FLAT),
        (IndexConfig(type=IndexType.HNSW), 10_000, IndexType.HNSW),
        (IndexConfig(type=IndexType.IVF), 10_000, IndexType.IVF),
        (IndexConfig(type=IndexType.IVF, num_lists=1000), 38_999, IndexType.FLAT),
        (IndexConfig(type=IndexType.IVF, num_lists=1000), 39_000, IndexType.IVF),
        (IndexConfig(type=IndexType.IVF_PQ), 10_000, IndexType.IVF_PQ),
        (IndexConfig(type=IndexType.IVF_PQ, num_lists=1), 10_000, IndexType.IVF_PQ),
    ],
)
def test_type_of_index_follows_config_and_size(
    config: IndexConfig, rows: int, expected: IndexType
) -> None:
    assert index_type_for(rows, config, SegmentPolicy()) is expected


@pytest.mark.parametrize("config", [FLAT, *ANN], ids=lambda config: str(config.type))
@pytest.mark.parametrize("unit", [True, False], ids=["cosine", "dot"])
def test_index_comes_back_from_its_arrays(config: IndexConfig, unit: bool) -> None:
    index = DenseIndex.build(clustered(11_000, 16, unit=unit), config, POLICY)
    arrays = index.to_arrays("x")
    again = DenseIndex.from_arrays(arrays, "x", (11_000, 16), POLICY)
    assert again.type is index.type
    np.testing.assert_array_equal(again.vectors, index.vectors)
    queries = clustered(5, 16, seed=1)
    for (rows, scores), (old_rows, old_scores) in zip(
        again.search(queries, 10, None, config, POLICY),
        index.search(queries, 10, None, config, POLICY),
        strict=True,
    ):
        np.testing.assert_array_equal(rows, old_rows)
        np.testing.assert_array_equal(scores, old_scores)


def test_vectors_outlive_the_index_that_holds_them() -> None:
    """They are a view of FAISS's own memory."""
    original = clustered(1000, 16)
    config = IndexConfig(type=IndexType.HNSW)
    vectors = DenseIndex.build(original.copy(), config, POLICY).vectors
    DenseIndex.build(clustered(1000, 16, seed=5), config, POLICY)
    np.testing.assert_array_equal(vectors, original)


def test_merged_segments_get_the_configured_index_and_keep_what_was_removed_out() -> None:
    vectors = clustered(1200, 8)
    config = CONFIG.model_copy(update={"index": IndexConfig(type=IndexType.HNSW)})
    index = CollectionIndex(config, POLICY)
    for first in range(0, 1200, 400):
        index.apply(
            [
                Put(document(f"{row:05d}", vectors=vectors[row : row + 1]))
                for row in range(first, first + 400)
            ]
        )
    merge = index.plan_merge(everything=True)
    merge.run()
    (view,) = index.install(merge).views
    assert view.segment.dense.type is IndexType.HNSW
    (view,) = index.apply([Remove(tuple(f"{row:05d}" for row in range(0, 1200, 2)))]).views
    assert (
        recall(view.segment.dense, config.index, clustered(20, 8, seed=1), view.living_rows) >= 0.9
    )
