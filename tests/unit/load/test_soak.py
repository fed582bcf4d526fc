"""Memory and file descriptors over time: sampled from real processes, judged by windows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deploy.processes import MARKER
from tests.load.soak import Period, Sample, changes, judge, watch

MIB = 1 << 20


def samples(
    rss: list[float], fds: list[int] | None = None, pid: int = 1, begin: int = 0
) -> list[Sample]:
    """One a second."""
    fds = fds or [10] * len(rss)
    return [
        Sample(float(begin + n), pid, "ray::SERVE_REPLICA::llama", int(mib * MIB), num)
        for n, (mib, num) in enumerate(zip(rss, fds, strict=True))
    ]


# Ten samples: one at rest, eight under load, one at rest.
LOAD = Period(1, 8)
RESTS = Period(0, 0), Period(9, 9)
FLAT = [100.0] * 10


def judged(found: list[Sample]) -> list[bool]:
    return [verdict.holds for verdict in judge(changes(found, LOAD, RESTS))]


def test_a_flat_process_holds_though_calls_come_and_go() -> None:
    memory = [100.0, 100, 104, 100, 101, 100, 104, 100, 101, 100]
    assert judged(samples(memory, [10, 30, 12, 10, 25, 11, 30, 40, 13, 10])) == [True, True, True]


def test_growth_outside_the_load_does_not_count() -> None:
    assert judged(samples([50, *FLAT[:8], 180])) == [True, True, True]


def test_growing_memory_fails() -> None:
    assert judged(samples([100.0 + n for n in range(10)])) == [False, True, True]


def test_a_store_may_hold_more_but_not_open_more() -> None:
    growing = samples([100.0 + n for n in range(10)], [10] * 9 + [11])
    store = [replace(sample, pid=2, name="redis-server 127.0.0.1:1") for sample in growing]
    assert judged(samples(FLAT) + store) == [True, False, True]


def test_descriptors_that_are_never_closed_fail() -> None:
    assert judged(samples(FLAT, [10, 12, 12, 13, 14, 15, 30, 20, 12, 11])) == [True, False, True]


def test_a_process_that_went_away_fails_and_one_that_came_is_not_judged() -> None:
    lasting = samples(FLAT)
    gone = samples(FLAT[:7], pid=2)
    helper = samples([100], pid=3, begin=2)
    came = samples([50, 80, 90, 95], pid=4, begin=6)
    assert judged(lasting + gone) == [True, True, False]
    assert judged(lasting + helper + came) == [True, True, True]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 samples under load, got 5"):
        changes(samples(FLAT), Period(1, 5), RESTS)
    with pytest.raises(ValueError, match="at rest"):
        changes(samples(FLAT), LOAD, (RESTS[0], Period(20, 30)))


@pytest.fixture
def marked_process() -> Iterator[subprocess.Popen[bytes]]:
    """One that carries a platform's mark, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, MARKER: "a-soaked-toy"},
    )
    yield process
    process.communicate(b"\n")


async def test_watching_finds_the_platforms_processes(
    marked_process: subprocess.Popen[bytes],
) -> None:
    found: list[Sample] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch("a-soaked-toy", time.monotonic(), 0.05, found), 2.0)
    assert {sample.pid for sample in found} == {marked_process.pid}
    assert len({sample.at_s for sample in found}) > 1
    assert all(sample.rss_bytes > 0 and sample.num_fds > 0 for sample in found)
