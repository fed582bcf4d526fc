"""The platform's processes over a long time: resident memory and file descriptors.

A process is judged by two windows, the first quarter of what follows the warm-up and the last: by
the median of its memory in each, and by the fewest descriptors it had open in each, which calls
that come and go do not move and a leak does. One that was there throughout the first and not
throughout the last fails the test.
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

__all__ = ["MOST_GROWTH", "ProcessChange", "Sample", "changes", "judge", "memory_lines", "watch"]

MOST_GROWTH = 0.03

_WINDOW_SHARE = 0.25  # of the time after the warm-up
_MIN_WINDOW_SAMPLES = 3
_MIB = 1 << 20


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
    """From the first window to the last one; None where it did not live through it."""

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
        """Of resident memory, as a share; 0 for one that did not live through both."""
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


async def watch(platform_id: str, interval_s: float, samples: list[Sample]) -> None:
    """Adds to `samples` until it is cancelled."""
    began = time.monotonic()
    while True:
        at_s = time.monotonic() - began
        samples += await asyncio.to_thread(_sample_processes, platform_id, at_s)
        await asyncio.sleep(interval_s)


def changes(samples: Sequence[Sample], warm_up_s: float) -> list[ProcessChange]:
    """Each process that was seen after the warm-up, the largest first.

    Raises `ValueError` where there are too few samples after it for two windows.
    """
    moments = sorted({sample.at_s for sample in samples if sample.at_s >= warm_up_s})
    size = max(_MIN_WINDOW_SAMPLES, round(_WINDOW_SHARE * len(moments)))
    if len(moments) < 2 * size:
        raise ValueError(
            f"warm_up_s: expected at least {2 * size} samples after it, got {len(moments)}"
        )
    first, last = frozenset(moments[:size]), frozenset(moments[-size:])
    by_pid: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.at_s >= warm_up_s:
            by_pid.setdefault(sample.pid, []).append(sample)
    found = [
        ProcessChange(
            pid=seen[0].pid,
            name=seen[0].name,
            rss_before=_median_rss(before),
            rss_after=_median_rss(after),
            fds_before=min((s.num_fds for s in before), default=None),
            fds_after=min((s.num_fds for s in after), default=None),
        )
        for seen in by_pid.values()
        for before, after in [(_throughout(first, seen), _throughout(last, seen))]
    ]
    return sorted(found, key=lambda c: -(c.rss_before or c.rss_after or 0.0))


def judge(found: Iterable[ProcessChange]) -> list[Verdict]:
    found = list(found)
    stayed = [change for change in found if change.lived_through]
    grown = [change for change in stayed if change.growth > MOST_GROWTH]
    leaking = [change for change in stayed if change.more_fds > 0]
    gone = [c for c in found if c.rss_before is not None and c.rss_after is None]
    most = max(stayed, key=lambda change: change.growth, default=None)
    return [
        Verdict(
            f"resident memory of each of {len(stayed)} processes grows by at most "
            f"{MOST_GROWTH:.0%}",
            bool(stayed) and not grown,
            ", ".join(map(_memory, grown)) or (f"at most {_memory(most)}" if most else "none"),
        ),
        Verdict(
            "no process opens more and more files",
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
    for sample in samples:
        line = lines.setdefault(f"{sample.name} ({sample.pid})", [])
        line.append((sample.at_s, sample.rss_bytes / _MIB))
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


def _name(process: psutil.Process) -> str:
    """What it is, without the parts that differ from start to start."""
    words = process.cmdline() or [process.name()]
    first = words[0].split("#")[0]
    if first.startswith("ray::"):
        return first
    name = first.rsplit("/", 1)[-1]
    module = next((word for word in words[1:] if not word.startswith("-")), "")
    return f"{name} {module.rsplit('/', 1)[-1]}".strip()[:60] if "python" in name else name
