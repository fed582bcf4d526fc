"""Batches hold the first in the queue and what is like it, and never more than the budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.embedding.bucketing import neighbours, window_size

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 1000))
def test_a_batch_holds_the_first_and_keeps_to_the_budget(lengths: list[int], budget: int) -> None:
    chosen = neighbours(lengths, budget)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen)
    taken = [lengths[position] for position in chosen]
    assert taken == sorted(taken)
    assert len(taken) == 1 or len(taken) * taken[-1] <= budget
    assert taken[-1] <= max(32, 2 * taken[0])


@given(LENGTHS, st.integers(1, 1000))
def test_nothing_that_fits_between_its_ends_is_left_out(lengths: list[int], budget: int) -> None:
    chosen = neighbours(lengths, budget)
    taken = [lengths[position] for position in chosen]
    left = [length for position, length in enumerate(lengths) if position not in chosen]
    assert not any(taken[0] < length < taken[-1] for length in left)


@given(LENGTHS)
def test_equal_lengths_fill_the_budget(lengths: list[int]) -> None:
    equal = [7] * len(lengths)
    assert len(neighbours(equal, 70)) == min(10, len(equal))


@given(LENGTHS, st.integers(1, 1000))
def test_a_window_is_some_budgets_deep_and_never_empty(lengths: list[int], budget: int) -> None:
    size = window_size(lengths, budget)
    assert 1 <= size <= len(lengths)
    assert size == len(lengths) or sum(lengths[:size]) > 4 * budget
    assert sum(lengths[: size - 1]) <= 4 * budget
