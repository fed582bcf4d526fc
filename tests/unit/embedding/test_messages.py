"""Protobuf to the domain and back."""

from __future__ import annotations

import numpy as np
import pytest

from orrery.v1 import embedding_pb2 as pb
from services.embedding import messages
from services.embedding.vectors import Cost, Embedded
from services.runtime.errors import InvalidRequest


@pytest.mark.parametrize("dimensions", [1, 31, 32, 384, 5000])
def test_embeddings_carry_their_values_bit_for_bit(dimensions: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, dimensions)).astype(np.float32)
    embedded = Embedded(
        vectors=list(vectors),
        num_tokens=[3, 1, 2],
        truncated=[False, True, False],
        cached=[False, False, True],
        cost=Cost(6, 2, 0.0, 0.0),
    )
    made = messages.embeddings(embedded, vectors[:, :])
    assert made == [
        pb.Embedding(values=vectors[0].tolist(), num_tokens=3),
        pb.Embedding(values=vectors[1].tolist(), num_tokens=1, truncated=True),
        pb.Embedding(values=vectors[2].tolist(), num_tokens=2, cached=True),
    ]
    fewer = messages.embeddings(embedded, vectors[:, : (dimensions + 1) // 2])
    assert list(fewer[0].values) == vectors[0, : (dimensions + 1) // 2].tolist()


def test_rows_of_cosines_are_bit_for_bit() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (3, 70)).astype(np.float32)
    rows = messages.similarity_rows(cosines)
    assert rows == [pb.SimilarityRow(cosines=row) for row in cosines.tolist()]


def test_ranking_is_best_first_and_stable() -> None:
    ranked = messages.ranking([0.5, 0.9, 0.5, 0.1], top_n=3)
    assert [result.index for result in ranked] == [1, 0, 2]


def test_an_unknown_purpose_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        messages.purpose(3)
