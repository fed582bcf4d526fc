"""The platform's processes over a long time: resident memory and file descriptors.

A process's memory is judged under load, by the medians of the first and of the last quarter of it.
Its descriptors are judged at rest, by the fewest that it has in a pause before that load and in one
after it: under load, pools hold more or fewer connections from moment to moment. Redis holds what
it is given, a vector for each new text, and its memory is shown but not judged. A process that was
there throughout the first quarter and not throughout the last has gone away, which none may.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from deploy import embedded_redis
from deploy.processes import find_processes
from tests.load.verdicts import Verdict

__all__ = [
    "MOST_GROWTH",
    "Period",
    "ProcessChange",
    "Sample",
    "changes",
    "judge",
    "memory_lines",
    "watch",
]

MOST_GROWTH = 0.03

_WINDOW_SHARE = 0.25  # of the samples under load
_MIN_WINDOW_SAMPLES = 3
_STORE = "redis-server"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Period:
    """In seconds since the start; both ends belong to it."""

    begin_s: float
    end_s: float

    def __contains__(self, at_s: float) -> bool:
        return self.begin_s <= at_s <= self.end_s


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment, in seconds since the start."""

    at_s: float
    pid: int
    name: str
    rss_bytes: int
    num_fds: int


@dataclass(frozen=True, slots=True)
class ProcessChange:
    """From the first window to the last one; None where it was not there all the time.

    Memory by windows of the load, descriptors by the rest before it and the rest after it.
    """

    pid: int
    name: str
    rss_before: float | None
    rss_after: float | None
    fds_before: int | None
    fds_after: int | None

    @property
    def lived_through(self) -> bool:
        return self.rss_before is not None and self.rss_after is not None

    @property
    def growth(self) -> float:
        """Of resident memory, as a share; 0 for one that was not there in both."""
        if self.rss_before is None or self.rss_after is None:
            return 0.0
        return self.rss_after / self.rss_before - 1

    @property
    def more_fds(self) -> int:
        if self.fds_before is None or self.fds_after is None:
            return 0
        return self.fds_after - self.fds_before

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "growth": self.growth, "more_fds": self.more_fds}


async def watch(platform_id: str, began: float, interval_s: float, samples: list[Sample]) -> None:
    """Adds to `samples` until it is cancelled. `began` by `time.monotonic`."""
    while True:
        at_s = time.monotonic() - began
        samples += await asyncio.to_thread(_sample_processes, platform_id, at_s)
        await asyncio.sleep(interval_s)


def changes(
    samples: Sequence[Sample], load: Period, rests: tuple[Period, Period]
) -> list[ProcessChange]:
    """Each process that was seen then, the largest first. `rests` lie before and after the load.

    Raises `ValueError` where there are too few samples.
    """
    moments = sorted({sample.at_s for sample in samples})
    loaded = [at_s for at_s in moments if at_s in load]
    size = max(_MIN_WINDOW_SAMPLES, round(_WINDOW_SHARE * len(loaded)))
    if len(loaded) < 2 * size:
        raise ValueError(f"expected at least {2 * size} samples under load, got {len(loaded)}")
    first, last = frozenset(loaded[:size]), frozenset(loaded[-size:])
    before, after = (frozenset(at_s for at_s in moments if at_s in rest) for rest in rests)
    if not (before and after):
        raise ValueError("expected a sample at rest before the load and one after it")
    by_pid: dict[int, list[Sample]] = {}
    for sample in samples:
        by_pid.setdefault(sample.pid, []).append(sample)
    found = [
        ProcessChange(
            pid=pid,
            name=seen[0].name,
            rss_before=_median_rss(_throughout(first, seen)),
            rss_after=_median_rss(_throughout(last, seen)),
            fds_before=_fewest_fds(_throughout(before, seen)),
            fds_after=_fewest_fds(_throughout(after, seen)),
        )
        for pid, seen in by_pid.items()
    ]
    return sorted(found, key=lambda c: -(c.rss_before or c.rss_after or 0.0))


def judge(found: Iterable[ProcessChange]) -> list[Verdict]:
    found = list(found)
    stayed = [change for change in found if change.lived_through]
    weighed = [change for change in stayed if not change.name.startswith(_STORE)]
    grown = [change for change in weighed if change.growth > MOST_GROWTH]
    leaking = [change for change in stayed if change.more_fds > 0]
    gone = [c for c in found if c.rss_before is not None and c.rss_after is None]
    most = max(weighed, key=lambda change: change.growth, default=None)
    return [
        Verdict(
            f"resident memory of each of {len(weighed)} processes grows by at most "
            f"{MOST_GROWTH:.0%}",
            bool(weighed) and not grown,
            ", ".join(map(_memory, grown)) or (f"at most {_memory(most)}" if most else "none"),
        ),
        Verdict(
            f"none of {len(stayed)} processes has more files open at rest than before",
            bool(stayed) and not leaking,
            ", ".join(f"{c.name} {c.fds_before} to {c.fds_after}" for c in leaking) or "none does",
        ),
        Verdict(
            "no process went away",
            not gone,
            ", ".join(c.name for c in gone) or "none did",
        ),
    ]


def memory_lines(samples: Iterable[Sample]) -> dict[str, list[tuple[float, float]]]:
    """Of each process, moments and MiB."""
    lines: dict[str, list[tuple[float, float]]] = {}
    titles: dict[int, str] = {}  # Ray's processes change theirs while they do something
    for sample in samples:
        title = titles.setdefault(sample.pid, f"{sample.name} ({sample.pid})")
        lines.setdefault(title, []).append((sample.at_s, sample.rss_bytes / _MIB))
    return lines


def _sample_processes(platform_id: str, at_s: float) -> list[Sample]:
    """All that live now."""
    samples = []
    for process in [*find_processes(platform_id), *embedded_redis.find(platform_id)]:
        with contextlib.suppress(psutil.Error):  # it ended while we looked
            rss, fds = process.memory_info().rss, process.num_fds()
            samples.append(Sample(at_s, process.pid, _name(process), rss, fds))
    return samples


def _memory(change: ProcessChange) -> str:
    assert change.rss_before is not None
    assert change.rss_after is not None
    before, after = change.rss_before / _MIB, change.rss_after / _MIB
    return f"{change.name} {before:.1f} to {after:.1f} MiB ({change.growth:+.1%})"


def _throughout(window: frozenset[float], seen: Iterable[Sample]) -> list[Sample]:
    """A process's samples in a window; none where it was not there all the time."""
    found = [sample for sample in seen if sample.at_s in window]
    return found if len(found) == len(window) else []


def _median_rss(samples: Sequence[Sample]) -> float | None:
    return statistics.median(s.rss_bytes for s in samples) if samples else None


def _fewest_fds(samples: Iterable[Sample]) -> int | None:
    return min((sample.num_fds for sample in samples), default=None)


def _name(process: psutil.Process) -> str:
    """What it is, without the parts that differ from start to start."""
    words = process.cmdline() or [process.name()]
    first = words[0].split("#")[0]
    if first.startswith("ray::"):
        return first
    name = first.rsplit("/", 1)[-1]
    module = next((word for word in words[1:] if not word.startswith("-")), "")
    return f"{name} {module.rsplit('/', 1)[-1]}".strip()[:60] if "python" in name else name
