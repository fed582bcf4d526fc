from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.moe.router.load import LoadWindow


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def counts(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def window(clock: Clock, seconds: float = 60.0) -> LoadWindow:
    return LoadWindow((1, 3), 2, ("a", "b"), seconds, clock)


def test_sums_are_by_layer_expert_and_shard() -> None:
    load = window(Clock())
    load.routed(3, counts(4, 2), entropy_sum=3.0, num_tokens=3, num_dropped=1)
    load.routed(3, counts(0, 2), entropy_sum=0.5, num_tokens=1, num_dropped=0)
    load.computed("b", 7)
    total = load.total()
    assert total.tokens.tolist() == [[0, 0], [4, 4]]
    assert total.num_tokens.tolist() == [0, 4]
    assert total.mean_entropies().tolist() == [0.0, 0.875]
    assert total.num_dropped.tolist() == [0, 1]
    assert total.rows.tolist() == [0, 7]
    assert total.by_key((1, 3))[(3, 1)] == 4.0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = Clock()
    load = window(clock)
    load.routed(1, counts(1, 0), 0.0, 1, 0)
    clock.now += 59
    load.routed(1, counts(0, 1), 0.0, 1, 0)
    assert load.total().tokens[0].tolist() == [1, 1]
    clock.now += 30
    assert load.total().tokens[0].tolist() == [0, 1]
    clock.now += 1000
    assert load.total().tokens.sum() == 0


def test_a_shorter_window_is_the_recent_part() -> None:
    clock = Clock()
    load = window(clock)
    load.routed(1, counts(5, 0), 0.0, 5, 0)
    clock.now += 30
    load.routed(1, counts(0, 3), 0.0, 3, 0)
    recent = load.total(10)
    assert recent.tokens[0].tolist() == [0, 3]
    assert recent.window_s == 10
    assert load.total().window_s == pytest.approx(30)


@given(window_s=st.floats(1, 300), age_s=st.floats(0.5, 1000))
def test_tokens_of_a_window_are_those_of_the_seconds_it_tells(
    window_s: float, age_s: float
) -> None:
    clock = Clock()
    load = window(clock, seconds=300.0)  # its slots have 5 s
    while clock.now < 100 + age_s:
        clock.now += 0.5
        load.routed(1, counts(100, 0), 0.0, 100, 0)
    recent = load.total(window_s)
    assert recent.num_tokens[0] == pytest.approx(200 * recent.window_s, abs=100)
    assert recent.window_s >= min(window_s, clock.now - 100)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 5)), max_size=60))
def test_sums_equal_those_of_a_plain_list(events: list[tuple[float, int]]) -> None:
    """Within a slot of the border, which are whole seconds here."""
    clock = Clock()
    load = window(clock)
    seen = []
    for pause_s, count in events:
        clock.now += pause_s
        load.routed(1, counts(count, 0), 0.0, count, 0)
        seen.append((int(clock.now - 100.0), count))
    last = int(clock.now - 100.0)
    expected = sum(count for second, count in seen if second >= last - 60)
    assert load.total().tokens[0, 0] == expected
