"""Percentiles, rates and goodput of outcomes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.load.outcomes import OK, REFUSED
from orrery.load.summary import Objective, Percentiles, completion_rate, percentile, summarize
from tests.unit.client.load.outcomes import an_outcome

durations = st.lists(st.floats(0, 1e3), min_size=1)
statuses = st.lists(st.sampled_from([OK, REFUSED, "UNAVAILABLE", "HTTP_502"]))


@given(durations, st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent / 100)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(durations)
def test_percentiles_ascend_and_end_with_the_largest(values: list[float]) -> None:
    found = Percentiles.of(values)
    ordered = [found.p50, found.p90, found.p95, found.p99, found.max]
    assert ordered == sorted(ordered)
    assert found.max == max(values)
    assert found.count == len(values)


def test_a_percentile_of_nothing_is_none() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(Percentiles.of([]).p99)


@given(statuses)
def test_every_request_is_counted_once(found: list[str]) -> None:
    summary = summarize([an_outcome(status) for status in found], 10.0, Objective())
    assert summary.num_ok + summary.num_refused + summary.num_errors == len(found)
    assert summary.num_requests == len(found)
    assert summary.num_ok == found.count(OK)
    assert summary.errors.get("UNAVAILABLE", 0) == found.count("UNAVAILABLE")
    json.dumps(summary.as_json(), allow_nan=False)


def test_latencies_are_those_of_answers_and_refusals_have_their_own() -> None:
    outcomes = [
        an_outcome(first_s=0.2),
        an_outcome(REFUSED, total_s=0.004, retry_after_s=1.0),
        an_outcome(REFUSED, total_s=0.006, retry_after_s=3.0),
        an_outcome(REFUSED, total_s=0.005),
        an_outcome("UNAVAILABLE", first_s=1.5, total_s=1.5),
    ]
    summary = summarize(outcomes, 2.0, Objective())
    assert (summary.first.count, summary.first.max) == (1, 0.2)
    assert summary.total.count == 1
    assert summary.refusals.latency.max == 0.006
    assert summary.refusals.num_without_retry_after == 1
    assert (summary.refusals.min_retry_after_s, summary.refusals.max_retry_after_s) == (1.0, 3.0)
    assert (summary.offered_rate, summary.completed_rate) == (2.5, 0.5)
    assert summary.tokens_rate == 1.0


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"first_s": 0.3}, False),
        ({"gaps_s": (0.01, 0.08)}, True),  # 45 ms on average
        ({"gaps_s": (0.06, 0.06)}, False),
        ({"gaps_s": ()}, True),
        ({"first_s": None, "gaps_s": (), "total_s": 0.9}, True),
        ({"first_s": None, "gaps_s": (), "total_s": 1.1}, False),
        ({"status": REFUSED}, False),
    ],
)
def test_an_answer_is_good_when_it_keeps_the_objective(
    changes: dict[str, object], good: bool
) -> None:
    objective = Objective(first_s=0.2, gap_s=0.05, total_s=1.0)
    summary = summarize([an_outcome(**changes), an_outcome()], 2.0, objective)
    assert summary.goodput_rate == (1 + good) / 2
    assert summary.goodput_share == (1 + good) / 2


def test_rates_of_answers_count_the_time_until_the_last_of_them() -> None:
    outcomes = [an_outcome(), an_outcome(planned_s=4.0, total_s=6.0, num_tokens=8)]
    summary = summarize(outcomes, 5.0, Objective())
    assert summary.offered_rate == 2 / 5
    assert (summary.completed_rate, summary.tokens_rate) == (2 / 10, 1.0)


def test_the_completion_rate_counts_answers_that_end_within_the_interval() -> None:
    outcomes = [
        an_outcome(planned_s=0.0, total_s=1.0),
        an_outcome(planned_s=1.0, total_s=2.0),
        an_outcome(planned_s=3.0, total_s=2.0),  # ends with it
        an_outcome("UNAVAILABLE", planned_s=2.0, total_s=1.0),
    ]
    assert completion_rate(outcomes, 1.0, 5.0) == 2 / 4
