"""What an exporter is told of the instruments, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from services.runtime.metrics import PrometheusRegistry
from services.runtime.metrics_publisher import MetricsPublisher

LABELS = {"service": "generation", "model": "m"}


class Told:
    """An exporter that remembers: counters added up, gauges as they were last."""

    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], float] = {}
        self.shown: dict[tuple[str, str], float] = {}
        self.num_calls = 0
        self.fails = False

    def count(self, name: str, description: str, labels: Mapping[str, str], more: float) -> None:
        assert more >= 0
        assert description == "Things."
        if self.fails:
            self.fails = False
            raise ConnectionError("the agent is away")
        key = (name, labels.get("kind", ""))
        self.counted[key] = self.counted.get(key, 0.0) + more
        self.num_calls += 1

    def show(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        assert LABELS.items() <= labels.items()
        self.shown[name, labels.get("le", labels.get("kind", ""))] = value
        self.num_calls += 1


def test_counters_are_told_what_is_new_and_are_there_before_they_count() -> None:
    registry, told = PrometheusRegistry(LABELS), Told()
    publisher = MetricsPublisher(registry.collector, told)
    plain = registry.counter("things_total", "Things.")
    by_kind = registry.counter("parts_total", "Things.", ("kind",))
    publisher.publish()
    assert told.counted == {("orrery_things_total", ""): 0}
    plain.inc(3)
    by_kind.inc(kind="a")
    publisher.publish()
    plain.inc(2)
    publisher.publish()
    publisher.publish()
    assert told.counted == {("orrery_things_total", ""): 5, ("orrery_parts_total", "a"): 1}


def test_what_the_exporter_failed_to_take_is_told_the_next_time() -> None:
    registry, told = PrometheusRegistry(LABELS), Told()
    publisher = MetricsPublisher(registry.collector, told)
    registry.counter("things_total", "Things.").inc(3)
    told.fails = True
    with pytest.raises(ConnectionError):
        publisher.publish()
    publisher.publish()
    assert told.counted == {("orrery_things_total", ""): 3}


async def test_what_was_counted_to_the_end_is_told_and_given_time_to_be_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, told = PrometheusRegistry(LABELS), Told()
    publisher = MetricsPublisher(registry.collector, told)
    counter = registry.counter("things_total", "Things.")
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        assert told.counted == {("orrery_things_total", ""): 3}
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", wait)
    await publisher.close(60.0)
    assert waited == []  # nothing was counted
    counter.inc(3)
    await publisher.close(60.0)
    assert len(waited) == 1
    assert 0 < waited[0] <= 60


def test_gauges_are_said_again_each_time_once_they_were_set() -> None:
    registry, told = PrometheusRegistry(LABELS), Told()
    publisher = MetricsPublisher(registry.collector, told)
    gauge = registry.gauge("level", "Things.", ("kind",))
    registry.gauge("never_set", "Things.")
    publisher.publish()
    assert told.shown == {}
    gauge.set(1, kind="a")
    gauge.set(2, kind="b")
    publisher.publish()
    gauge.set(3, kind="b")
    before = told.num_calls
    publisher.publish()
    assert told.num_calls == before + 2
    assert told.shown == {("orrery_level", "a"): 1, ("orrery_level", "b"): 3}


def test_histograms_are_told_as_counts_by_bucket_and_their_exact_sum() -> None:
    registry, told = PrometheusRegistry(LABELS), Told()
    publisher = MetricsPublisher(registry.collector, told)
    histogram = registry.histogram("seconds", "Things.", (1.0, 2.5))
    for value in (0.3, 0.4, 2.0, 7.0):
        histogram.observe(value)
    publisher.publish()
    assert told.shown == {
        ("orrery_seconds_bucket", "1.0"): 2,
        ("orrery_seconds_bucket", "2.5"): 3,
        ("orrery_seconds_bucket", "+Inf"): 4,
        ("orrery_seconds_count", ""): 4,
        ("orrery_seconds_sum", ""): 9.7,
    }
