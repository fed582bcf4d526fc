"""Says again what gauges show, for an exporter that forgets a gauge it has not heard of lately.

Ray's does after twenty seconds: an idle service's load, or what is told once at the start, would
vanish. Knows nothing of who exports.
"""

from __future__ import annotations

import threading
import time

from services.runtime.metrics import Gauge

__all__ = ["GaugeKeeper"]

INTERVAL_S = 5.0


class GaugeKeeper:
    """A thread of its own, which ends with the process; it starts with the first gauge."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._kept: list[_KeptGauge] = []
        self._thread: threading.Thread | None = None

    def keep(self, gauge: Gauge) -> Gauge:
        """The gauge to be set in place of this one. From one thread."""
        kept = _KeptGauge(gauge)
        self._kept.append(kept)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gauge-keeper", daemon=True)
            self._thread.start()
        return kept

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            for gauge in tuple(self._kept):
                gauge.repeat()


class _KeptGauge:
    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._lock = threading.Lock()  # lest an old value be said after a new one
        self._shown: dict[tuple[str, ...], tuple[float, dict[str, str]]] = {}  # by labels

    def set(self, value: float, **labels: str) -> None:
        with self._lock:
            self._shown[tuple(labels.values())] = (value, labels)
            self._gauge.set(value, **labels)

    def repeat(self) -> None:
        with self._lock:
            for value, labels in self._shown.values():
                self._gauge.set(value, **labels)
