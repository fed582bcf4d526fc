"""Memory and file descriptors over time: sampled from real processes, judged by windows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.processes import MARKER
from tests.load.soak import Sample, changes, judge, watch

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


def judged(found: list[Sample], warm_up_s: float = 0.0) -> list[bool]:
    return [verdict.holds for verdict in judge(changes(found, warm_up_s))]


def test_a_flat_process_holds_though_calls_come_and_go() -> None:
    flat = samples([100, 104, 100, 101, 100, 104, 100, 101], [10, 30, 12, 10, 25, 11, 10, 40])
    assert judged(flat) == [True, True, True]


def test_growth_before_the_warm_up_ends_does_not_count() -> None:
    warming = samples([50, 90, 100, 100, 100, 100, 100, 100])
    assert judged(warming) == [False, True, True]
    assert judged(warming, warm_up_s=2.0) == [True, True, True]


def test_growing_memory_fails() -> None:
    assert judged(samples([100, 101, 102, 103, 104, 105, 106])) == [False, True, True]


def test_descriptors_that_are_never_closed_fail() -> None:
    assert judged(samples([100] * 7, [10, 12, 12, 13, 14, 15, 30])) == [True, False, True]


def test_a_process_that_went_away_fails_and_one_that_came_is_not_judged() -> None:
    lasting = samples([100] * 8)
    gone = samples([100] * 4, pid=2)
    helper = samples([100], pid=3, begin=1)
    came = samples([50, 80, 90], pid=4, begin=5)
    assert judged(lasting + gone) == [True, True, False]
    assert judged(lasting + helper + came) == [True, True, True]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 samples after it, got 5"):
        changes(samples([100] * 8), warm_up_s=3.0)


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
        await asyncio.wait_for(watch("a-soaked-toy", 0.05, found), 2.0)
    assert {sample.pid for sample in found} == {marked_process.pid}
    assert len({sample.at_s for sample in found}) > 1
    assert all(sample.rss_bytes > 0 and sample.num_fds > 0 for sample in found)
