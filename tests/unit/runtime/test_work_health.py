"""Work that fails every time, or does not end, is told; what says nothing of the model is not."""

from __future__ import annotations

import pytest

from services.runtime.work_health import WorkHealth


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> WorkHealth:
    return WorkHealth("a step", 10.0, clock)


def test_failures_in_a_row_are_told_until_one_succeeds(health: WorkHealth) -> None:
    for _ in range(2):
        health.began()
        health.failed()
    assert health.failure is None
    health.began()
    health.failed()
    assert health.failure == "a step failed 3 times in a row"
    health.began()
    health.succeeded()
    assert health.failure is None


def test_blameless_failures_neither_count_nor_excuse(health: WorkHealth) -> None:
    for _ in range(3):
        health.failed()
        health.failed(blameless=True)
    assert health.failure is not None
    for _ in range(5):
        health.failed(blameless=True)
    assert health.failure == "a step failed 3 times in a row"


def test_work_that_does_not_end_is_told_until_it_does(health: WorkHealth, clock: Clock) -> None:
    health.began()
    clock.now_s += 10
    assert health.failure is None
    clock.now_s += 1
    assert health.failure == "a step has been under way for 11 s"
    health.succeeded()
    assert health.failure is None


@pytest.mark.parametrize("ends", ["succeeded", "failed"])
def test_doing_nothing_is_no_failure(health: WorkHealth, clock: Clock, ends: str) -> None:
    health.began()
    getattr(health, ends)()
    clock.now_s += 3600
    assert health.failure is None
