"""Gauges are said again, as they were last, until they are set anew."""

from __future__ import annotations

import threading

from services.runtime.gauge_keeper import GaugeKeeper


class Hearing:
    """A gauge that remembers what it is told, and wakes whoever waits for so much."""

    def __init__(self) -> None:
        self.told: list[tuple[float, dict[str, str]]] = []
        self._changed = threading.Condition()

    def set(self, value: float, **labels: str) -> None:
        with self._changed:
            self.told.append((value, labels))
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, timeout=30)


def test_values_are_said_again_each_with_its_labels() -> None:
    hearing = Hearing()
    gauge = GaugeKeeper(interval_s=0.001).keep(hearing)
    gauge.set(1, queue="a")
    gauge.set(2, queue="b")
    hearing.wait_for(12)
    assert {(value, labels["queue"]) for value, labels in hearing.told} == {(1, "a"), (2, "b")}


def test_what_is_said_again_is_the_last_value() -> None:
    hearing = Hearing()
    gauge = GaugeKeeper(interval_s=0.001).keep(hearing)
    for value in range(50):
        gauge.set(value)
        hearing.wait_for(len(hearing.told) + 1)
    last = len(hearing.told)
    hearing.wait_for(last + 5)
    values = [value for value, _ in hearing.told]
    assert values == sorted(values)
    assert set(values[last:]) == {49}


def test_gauge_that_was_never_set_is_not_said() -> None:
    silent, heard = Hearing(), Hearing()
    keeper = GaugeKeeper(interval_s=0.001)
    keeper.keep(silent)
    keeper.keep(heard).set(1)
    heard.wait_for(10)
    assert silent.told == []
