"""How the time of a question is split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.deadlines import Budget, end_before

SHARES = {"embed": 0.05, "search": 0.1, "pack": 0.05, "generate": 0.3}
STAGES = tuple(SHARES)


def test_margin_is_a_tenth_of_the_time_but_never_more_than_50_ms() -> None:
    assert end_before(0.0, 0.2) == pytest.approx(0.18)
    assert end_before(0.0, 30.0) == pytest.approx(29.95)
    assert end_before(5.0, 4.0) == 4.0


def test_each_stage_leaves_the_shares_of_those_after_it() -> None:
    budget = Budget(10.0, 11.0, SHARES, STAGES)
    assert budget.cutoff_s("embed") == pytest.approx(10.55)
    assert budget.cutoff_s("search") == pytest.approx(10.65)
    assert budget.cutoff_s("generate") == 11.0


def test_stage_that_does_not_run_has_nothing_kept_for_it() -> None:
    budget = Budget(0.0, 1.0, SHARES, ("search", "generate"))
    assert budget.cutoff_s("search") == pytest.approx(0.7)
    assert budget.cutoff_s("save") == 1.0


@given(st.floats(0.001, 1000), st.lists(st.sampled_from(STAGES), unique=True))
def test_cutoffs_never_go_back_and_never_pass_the_end(total: float, stages: list[str]) -> None:
    budget = Budget(0.0, total, SHARES, stages)
    cutoffs = [budget.cutoff_s(stage) for stage in stages]
    assert cutoffs == sorted(cutoffs)
    assert all(0 < cutoff <= total for cutoff in cutoffs)
