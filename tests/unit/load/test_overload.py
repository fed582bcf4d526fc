"""Judging an overload: from outcomes made by hand, and from a toy that is overloaded."""

from __future__ import annotations

from random import Random

import pytest

from orrery.load.asks import draw_ask
from orrery.load.outcomes import REFUSED, Outcome
from orrery.load.report import Run
from orrery.load.transports import TRANSPORTS, connected
from tests.fakes.toy_platform import SETTINGS, SUBJECT, Toy
from tests.load.overload import Overload, judge, measure_overload
from tests.unit.client.load.outcomes import an_outcome

BELOW = tuple(an_outcome(first_s=0.1) for _ in range(100))
REFUSALS = tuple(an_outcome(REFUSED, total_s=0.004, retry_after_s=1.0) for _ in range(100))
ABOVE = (*(an_outcome(first_s=0.19) for _ in range(100)), *REFUSALS)


def judged(below: tuple[Outcome, ...], above: tuple[Outcome, ...]) -> list[bool]:
    runs = Run("below", 10.0, below), Run("above", 10.0, above)
    return [verdict.holds for verdict in judge(Overload("grpc", 10.0, *runs))]


def test_an_overload_is_borne_when_all_holds() -> None:
    assert judged(BELOW, ABOVE) == [True] * 5


@pytest.mark.parametrize(
    ("below", "above", "fails"),
    [
        (BELOW, ABOVE[:100], 0),  # nothing was refused
        (BELOW, (*ABOVE, *[an_outcome(first_s=0.21)] * 3), 1),
        (BELOW, (*ABOVE, *[an_outcome(REFUSED, total_s=0.06, retry_after_s=1.0)] * 3), 2),
        (BELOW, (*ABOVE, an_outcome(REFUSED, total_s=0.001)), 3),
        (BELOW, (*ABOVE, an_outcome("UNAVAILABLE")), 4),
        ((*BELOW, an_outcome("UNFINISHED")), ABOVE, 4),
    ],
)
def test_each_claim_fails_by_what_contradicts_it(
    below: tuple[Outcome, ...], above: tuple[Outcome, ...], fails: int
) -> None:
    assert judged(below, above)[fails] is False


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_overload_of_a_toy_is_measured_and_judged(toy: Toy, transport: str) -> None:
    rng = Random(0)
    async with connected(toy.target, [transport]) as (one,):
        found = await measure_overload(
            one,
            lambda size: draw_ask("generation", SUBJECT, rng, size),
            SETTINGS.max_running,
            duration_s=1.0,
            rng=rng,
        )
    assert found.capacity > 0
    assert len(found.above.outcomes) > len(found.below.outcomes) > 0
    _, _, _, says_when, has_no_other_error = judge(found)
    assert says_when.found.endswith(" 0 without")
    assert has_no_other_error.holds, has_no_other_error.found
