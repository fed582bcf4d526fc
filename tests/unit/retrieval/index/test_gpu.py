from __future__ import annotations

import numpy as np
import pytest

from services.retrieval.index.collection_index import CollectionIndex
from services.retrieval.index.dense import DenseIndex
from services.retrieval.index.gpu import gpu_available
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import IndexConfig
from tests.unit.retrieval.index.reference import CONFIG, unit_vectors


@pytest.mark.skipif(gpu_available(), reason="there is one")
def test_policy_with_a_gpu_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="use_gpu"):
        CollectionIndex(CONFIG, SegmentPolicy(use_gpu=True))


@pytest.mark.gpu
def test_flat_search_on_the_gpu_equals_the_cpu() -> None:
    generator = np.random.default_rng(0)
    vectors, queries = unit_vectors(generator, 20_000, 64), unit_vectors(generator, 9, 64)
    config = IndexConfig()
    found = []
    for policy in (SegmentPolicy(), SegmentPolicy(use_gpu=True)):
        index = DenseIndex.build(vectors, config, policy)
        assert (index.gpu is not None) is policy.use_gpu
        found.append(index.search(queries, 10, None, config, policy))
    for (rows, scores), (gpu_rows, gpu_scores) in zip(*found, strict=True):
        np.testing.assert_array_equal(gpu_rows, rows)
        np.testing.assert_array_equal(gpu_scores, scores)
