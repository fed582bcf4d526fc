"""What outcomes come to: percentiles, rates, goodput. Knows neither files nor tables.

Latencies count from the planned arrival, and only of requests that were answered whole; refusals
have their own. Goodput (as in DistServe, Zhong et al. 2024) counts the answers that kept the
objective.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orrery.load.outcomes import OK, REFUSED, Outcome

__all__ = [
    "Objective",
    "Percentiles",
    "Refusals",
    "Summary",
    "by_group",
    "completion_rate",
    "percentile",
    "summarize",
]


@dataclass(frozen=True, slots=True)
class Objective:
    """What an answer must keep to count as good, in seconds.

    `first_s` and `gap_s`, the mean time between texts, are for answers that stream; `total_s` for
    those that come whole.
    """

    first_s: float = 0.5
    gap_s: float = 0.05
    total_s: float = 2.0

    def is_kept(self, outcome: Outcome) -> bool:
        if outcome.status != OK:
            return False
        if outcome.first_s is None:
            return outcome.total_s <= self.total_s
        gaps = outcome.gaps_s
        return outcome.first_s <= self.first_s and sum(gaps) <= self.gap_s * len(gaps)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of some durations, in seconds; NaN where there are none."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Percentiles:
        ordered = sorted(values)
        if not ordered:
            return cls(0, *[math.nan] * 6)
        p50, p90, p95, p99 = (_nearest_rank(ordered, share) for share in (0.50, 0.90, 0.95, 0.99))
        mean = sum(ordered) / len(ordered)
        return cls(len(ordered), mean, p50, p90, p95, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Refusals:
    """How long a caller who was refused waited for that, and when to come back it was told."""

    latency: Percentiles
    num_without_retry_after: int
    min_retry_after_s: float
    max_retry_after_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Some requests together; times in seconds.

    Offered is by the time within which requests arrived, the other rates by that until the last of
    them had ended.
    """

    num_requests: int
    num_ok: int
    num_refused: int
    errors: dict[str, int]  # by kind
    offered_rate: float
    completed_rate: float
    goodput_rate: float
    goodput_share: float  # of all that were asked for
    tokens_rate: float
    first: Percentiles
    gap: Percentiles
    total: Percentiles
    refusals: Refusals
    lateness: Percentiles  # the load generator's own

    @property
    def num_errors(self) -> int:
        return sum(self.errors.values())

    def as_json(self) -> dict[str, Any]:
        """Without NaN, which JSON has not: null."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest rank: the least value that `share` of the values do not exceed. NaN of none."""
    ordered = sorted(values)
    return _nearest_rank(ordered, share) if ordered else math.nan


def summarize(outcomes: Sequence[Outcome], duration_s: float, objective: Objective) -> Summary:
    """`duration_s`: how long requests arrived."""
    ok = [outcome for outcome in outcomes if outcome.status == OK]
    refused = [outcome for outcome in outcomes if outcome.status == REFUSED]
    statuses = Counter(outcome.status for outcome in outcomes)
    num_good = sum(objective.is_kept(outcome) for outcome in ok)
    elapsed_s = max([duration_s, *(o.planned_s + o.total_s for o in outcomes)])
    return Summary(
        num_requests=len(outcomes),
        num_ok=len(ok),
        num_refused=len(refused),
        errors={name: num for name, num in statuses.items() if name not in (OK, REFUSED)},
        offered_rate=len(outcomes) / duration_s,
        completed_rate=len(ok) / elapsed_s,
        goodput_rate=num_good / elapsed_s,
        goodput_share=num_good / len(outcomes) if outcomes else math.nan,
        tokens_rate=sum(outcome.num_tokens for outcome in ok) / elapsed_s,
        first=Percentiles.of(o.first_s for o in ok if o.first_s is not None),
        gap=Percentiles.of(gap for o in ok for gap in o.gaps_s),
        total=Percentiles.of(o.total_s for o in ok),
        refusals=_refusals(refused),
        lateness=Percentiles.of(o.lateness_s for o in outcomes),
    )


def by_group(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """By kind and transport, in the order of their names."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.kind, o.transport)):
        groups.setdefault(f"{outcome.kind} over {outcome.transport}", []).append(outcome)
    return groups


def completion_rate(outcomes: Iterable[Outcome], begin_s: float, end_s: float) -> float:
    """Answers a second, of those that ended within the interval of the run."""
    ended = [o.planned_s + o.total_s for o in outcomes if o.status == OK]
    return sum(begin_s <= moment < end_s for moment in ended) / (end_s - begin_s)


def _refusals(refused: Sequence[Outcome]) -> Refusals:
    told = [o.retry_after_s for o in refused if o.retry_after_s is not None]
    return Refusals(
        latency=Percentiles.of(o.total_s for o in refused),
        num_without_retry_after=len(refused) - len(told),
        min_retry_after_s=min(told, default=math.nan),
        max_retry_after_s=max(told, default=math.nan),
    )


def _nearest_rank(ordered: Sequence[float], share: float) -> float:
    rank = math.ceil(share * len(ordered) - 1e-9)  # 0.07 * 100 is a little more than 7
    return ordered[max(1, rank) - 1]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
