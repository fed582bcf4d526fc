"""Tells an exporter now and then what this process's instruments have come to.

Instruments are kept here, where recording costs a microsecond; telling Ray's exporter of a token
costs it more than computing a small one. Gauges are said again each time, for it forgets what it
has not heard of lately. Histograms are told as what they are made of, counts by bucket, hence
exactly. Knows nothing of who exports.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

__all__ = ["Exporter", "MetricsPublisher"]

INTERVAL_S = 5.0

_LOG = logging.getLogger("orrery.metrics")


class Exporter(Protocol):
    """Takes series by name and labels. A counter is told what is new, which may be nothing."""

    def count(
        self, name: str, description: str, labels: Mapping[str, str], more: float
    ) -> None: ...

    def show(
        self, name: str, description: str, labels: Mapping[str, str], value: float
    ) -> None: ...


class MetricsPublisher:
    """Of one process. `start` makes a thread of its own, which ends with the process."""

    def __init__(self, instruments: CollectorRegistry, exporter: Exporter) -> None:
        self._instruments = instruments
        self._exporter = exporter
        self._counted: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._counted_s: float | None = None  # when the exporter was last told of something new
        self._publishing = threading.Lock()

    def start(self) -> None:
        """Publishes at once, and every five seconds from now on."""
        threading.Thread(target=self._run, name="metrics-publisher", daemon=True).start()

    def publish(self) -> None:
        """Tells of all series that there are. What the exporter fails to take is told again."""
        with self._publishing:
            for family in self._instruments.collect():
                for sample in family.samples:
                    if sample.name.endswith("_created"):
                        continue
                    if family.type == "counter":
                        self._count(sample, family.documentation)
                    else:
                        self._exporter.show(
                            sample.name, family.documentation, sample.labels, sample.value
                        )

    async def close(self, report_s: float) -> None:
        """Publishes what was counted to the end, and waits until it has been reported.

        `report_s`: so long an exporter may keep to itself what it was told.
        """
        await asyncio.to_thread(self.publish)
        if self._counted_s is not None:
            await asyncio.sleep(max(0.0, self._counted_s + report_s - time.monotonic()))

    def _count(self, sample: Sample, description: str) -> None:
        series = (sample.name, frozenset(sample.labels.items()))
        more = sample.value - self._counted.get(series, 0.0)
        self._exporter.count(sample.name, description, sample.labels, more)
        self._counted[series] = sample.value
        if more:
            self._counted_s = time.monotonic()

    def _run(self) -> None:
        while True:
            try:
                self.publish()
            except Exception:  # noqa: BLE001 - what is counted is told the next time
                _LOG.exception("metrics_not_published")
            time.sleep(INTERVAL_S)
