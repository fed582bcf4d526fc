"""What must hold when four times as much is asked for as can be served.

capacity    answers a second of a closed loop with as many callers as the engine runs sequences
below       an open loop at 0.8 of it: what callers wait on a good day
above       an open loop at 4 times it: those let in wait at most twice as long, the others are
            told at once, and when to come back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from orrery.load.arrivals import poisson
from orrery.load.driver import Drawer, Transport, closed_loop, open_loop
from orrery.load.report import Run
from orrery.load.summary import Objective, Summary, completion_rate
from tests.load.verdicts import Verdict

__all__ = ["ABOVE", "BELOW", "NoAnswerError", "Overload", "judge", "measure_overload"]

BELOW = 0.8
ABOVE = 4.0
MOST_WAIT_RATIO = 2.0
MOST_REFUSAL_S = 0.05

_WARM_UP_SHARE = 0.2  # of the closed loop
_DRAIN_S = 60.0
_MS = 1e3


class NoAnswerError(Exception):
    """Nothing was answered whose rate could be measured."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One transport's capacity, in answers a second, and the runs below and above it."""

    transport: str
    capacity: float
    below: Run
    above: Run

    @property
    def runs(self) -> tuple[Run, Run]:
        return self.below, self.above


async def measure_overload(
    transport: Transport, draw: Drawer, num_callers: int, duration_s: float, rng: Random
) -> Overload:
    """Three times `duration_s`, and what is needed to answer what is left at the end of each.

    Raises `NoAnswerError` where the closed loop got none.
    """
    capacity = await _capacity(transport, draw, num_callers, duration_s)
    runs = []
    for factor in (BELOW, ABOVE):
        arrivals = poisson(factor * capacity, duration_s, rng)
        outcomes = await open_loop(arrivals, draw, [transport], _DRAIN_S)
        name = f"{transport.name}, {factor:g}x capacity"
        runs.append(Run(name, duration_s, tuple(outcomes)))
    return Overload(transport.name, capacity, *runs)


def judge(found: Overload) -> list[Verdict]:
    """What must hold, of one transport."""
    below, above = (run.summary(Objective()) for run in found.runs)
    return [
        _refuses(found, above),
        _waits(found, below, above),
        _refuses_at_once(found, above),
        _says_when(found, above),
        _has_no_other_error(found, (below, above)),
    ]


async def _capacity(
    transport: Transport, draw: Drawer, num_callers: int, duration_s: float
) -> float:
    outcomes = await closed_loop(num_callers, duration_s, draw, [transport], _DRAIN_S)
    capacity = completion_rate(outcomes, _WARM_UP_SHARE * duration_s, duration_s)
    if not capacity:
        statuses = sorted({outcome.status for outcome in outcomes})
        raise NoAnswerError(
            f"{transport.name}: no answer within {duration_s:g} s, but {', '.join(statuses)}"
        )
    return capacity


def _refuses(found: Overload, above: Summary) -> Verdict:
    share = above.num_refused / above.num_requests if above.num_requests else 0.0
    return Verdict(
        f"{found.transport}: at {ABOVE:g}x the capacity the excess is refused",
        above.num_refused > 0,
        f"{above.num_refused} of {above.num_requests} ({share:.0%})",
    )


def _waits(found: Overload, below: Summary, above: Summary) -> Verdict:
    ratio = above.first.p99 / below.first.p99
    return Verdict(
        f"{found.transport}: p99 to the first text at {ABOVE:g}x is at most {MOST_WAIT_RATIO:g} "
        f"times that at {BELOW:g}x",
        ratio <= MOST_WAIT_RATIO,
        f"{_MS * above.first.p99:.0f} ms beside {_MS * below.first.p99:.0f} ms, {ratio:.2f}x",
    )


def _refuses_at_once(found: Overload, above: Summary) -> Verdict:
    latency = above.refusals.latency
    return Verdict(
        f"{found.transport}: p99 of a refusal is under {_MS * MOST_REFUSAL_S:.0f} ms",
        latency.p99 < MOST_REFUSAL_S,
        f"{_MS * latency.p99:.1f} ms (median {_MS * latency.p50:.1f} ms)",
    )


def _says_when(found: Overload, above: Summary) -> Verdict:
    refusals = above.refusals
    return Verdict(
        f"{found.transport}: each refusal says when to come back",
        above.num_refused > 0 and refusals.num_without_retry_after == 0,
        f"after {refusals.min_retry_after_s:g} to {refusals.max_retry_after_s:g} s, "
        f"{refusals.num_without_retry_after} without",
    )


def _has_no_other_error(found: Overload, summaries: Sequence[Summary]) -> Verdict:
    errors = [f"{num} {name}" for summary in summaries for name, num in summary.errors.items()]
    return Verdict(
        f"{found.transport}: no request ends in any other way",
        not errors,
        ", ".join(errors) or "none",
    )
