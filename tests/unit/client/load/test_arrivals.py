"""When requests are planned: the rate, the order, the seed."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.load.arrivals import bursts, poisson, replay
from orrery.load.asks import Size
from orrery.load.trace import TraceRow

rates = st.floats(0.5, 200)
seeds = st.integers(0, 1 << 32)


@settings(deadline=None, max_examples=30)
@given(rates, st.floats(0.1, 30), seeds)
def test_poisson_arrivals_ascend_within_the_run(rate: float, duration_s: float, seed: int) -> None:
    moments = [arrival.at_s for arrival in poisson(rate, duration_s, Random(seed))]
    assert all(0 <= moment < duration_s for moment in moments)
    assert moments == sorted(moments)


@settings(deadline=None, max_examples=30)
@given(rates, seeds)
def test_poisson_arrivals_have_the_rate_and_the_scatter_of_a_poisson_process(
    rate: float, seed: int
) -> None:
    expected = 2000
    arrivals = list(poisson(rate, expected / rate, Random(seed)))
    assert abs(len(arrivals) - expected) < 6 * math.sqrt(expected)
    gaps = [b.at_s - a.at_s for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) / mean == pytest.approx(1.0, abs=0.25)  # of exponential gaps


@settings(deadline=None, max_examples=30)
@given(rates, seeds, st.integers(1, 32))
def test_bursts_come_in_whole_groups_at_the_same_mean_rate(
    rate: float, seed: int, num_at_once: int
) -> None:
    groups = 400
    arrivals = list(bursts(rate, groups * num_at_once / rate, Random(seed), num_at_once))
    moments = [arrival.at_s for arrival in arrivals]
    assert moments == sorted(moments)
    assert len(moments) == num_at_once * len(set(moments))
    assert abs(len(set(moments)) - groups) < 6 * math.sqrt(groups)


@settings(deadline=None, max_examples=30)
@given(rates, seeds)
def test_the_same_seed_plans_the_same_arrivals(rate: float, seed: int) -> None:
    assert list(poisson(rate, 5, Random(seed))) == list(poisson(rate, 5, Random(seed)))
    assert list(bursts(rate, 5, Random(seed), 3)) == list(bursts(rate, 5, Random(seed), 3))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1e4), min_size=1).map(sorted), st.floats(0.1, 100))
def test_a_replay_keeps_order_and_sizes_and_begins_at_once(
    timestamps: list[float], speed: float
) -> None:
    rows = [TraceRow(moment, Size(n + 1, 7)) for n, moment in enumerate(timestamps)]
    arrivals = list(replay(rows, speed))
    assert arrivals[0].at_s == 0
    assert [arrival.size for arrival in arrivals] == [row.size for row in rows]
    span = timestamps[-1] - timestamps[0]
    assert arrivals[-1].at_s == pytest.approx(span / speed)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_a_duration_or_a_speed_that_is_none_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        next(poisson(value, 1, Random(0)))
    with pytest.raises(ValueError, match="duration_s"):
        next(poisson(1, value, Random(0)))
    with pytest.raises(ValueError, match="speed"):
        next(replay([TraceRow(0, Size(1, 1))], value))
    with pytest.raises(ValueError, match="num_at_once"):
        next(bursts(1, 1, Random(0), 0))
