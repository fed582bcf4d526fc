from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.index.fusion import Ranking, fuse, in_order


def ranking(rows: list[int]) -> Ranking:
    return Ranking(np.array(rows, dtype=np.int64), np.linspace(1, 0, len(rows)))


rows = st.lists(st.integers(0, 30), unique=True, max_size=20)


@given(rows, rows, st.integers(1, 60), st.floats(0, 3), st.floats(0, 3))
def test_fused_score_is_the_sum_over_rankings(
    first: list[int], second: list[int], rrf_k: int, one: float, other: float
) -> None:
    fused = fuse((ranking(first), ranking(second)), (one, other), rrf_k)
    assert sorted(fused.rows.tolist()) == sorted({*first, *second})
    for at, row in enumerate(fused.rows.tolist()):
        expected = 0.0
        for ranked, weight, ranks in zip((first, second), (one, other), fused.ranks, strict=True):
            rank = ranked.index(row) + 1 if row in ranked else 0
            assert ranks[at] == rank
            expected += weight / (rrf_k + rank) if rank else 0.0
        assert fused.scores[at] == pytest.approx(expected)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=30), st.integers(0, 35))
def test_order_is_by_score_then_key(scores: list[float], limit: int) -> None:
    names = [f"{(7 * at) % 31:02d}" for at in range(len(scores))]
    found = in_order(np.arange(len(scores)), np.array(scores), limit, names.__getitem__)
    expected = sorted(range(len(scores)), key=lambda at: (-scores[at], names[at]))
    assert found.tolist() == expected[:limit]


def test_keys_are_looked_up_for_equal_scores_alone() -> None:
    asked: list[int] = []

    def key(row: int) -> int:
        asked.append(row)
        return row

    in_order(np.arange(6), np.array([5.0, 4.0, 4.0, 3.0, 1.0, 1.0]), 4, key)
    assert sorted(asked) == [1, 2]
