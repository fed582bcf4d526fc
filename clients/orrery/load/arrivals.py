"""When requests arrive. Nothing here waits: times are planned before the first one is sent.

poisson   independent callers: exponential gaps
bursts    groups that come at once, the groups independent: a compound Poisson process
replay    as a trace has them, faster or slower
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from orrery.load.asks import Size
from orrery.load.trace import TraceRow

__all__ = ["Arrival", "bursts", "poisson", "replay"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A moment in seconds after the start. `size` None = the workload draws one."""

    at_s: float
    size: Size | None = None


def poisson(rate: float, duration_s: float, rng: Random) -> Iterator[Arrival]:
    """On average `rate` a second, within [0, `duration_s`).

    Raises `ValueError` unless both are positive and finite.
    """
    _check("rate", rate)
    _check("duration_s", duration_s)
    at_s = rng.expovariate(rate)
    while at_s < duration_s:
        yield Arrival(at_s)
        at_s += rng.expovariate(rate)


def bursts(rate: float, duration_s: float, rng: Random, num_at_once: int) -> Iterator[Arrival]:
    """On average `rate` a second, in groups of `num_at_once`.

    Raises `ValueError` as `poisson` does, and where the group is empty.
    """
    if num_at_once < 1:
        raise ValueError(f"num_at_once: expected at least 1, got {num_at_once}")
    for first in poisson(rate / num_at_once, duration_s, rng):
        for _ in range(num_at_once):
            yield first


def replay(rows: Sequence[TraceRow], speed: float) -> Iterator[Arrival]:
    """The trace, `speed` times as fast as it was; its first request comes at once.

    Raises `ValueError` unless `speed` is positive and finite.
    """
    _check("speed", speed)
    for row in rows:
        yield Arrival((row.timestamp_s - rows[0].timestamp_s) / speed, row.size)


def _check(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value}")
