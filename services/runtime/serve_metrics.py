"""The metrics registry of a Serve replica: Ray's metrics agent exports, beside Ray's own.

Ray puts `ray_` before every name and adds the labels application, deployment and replica. Only
an `app.py` imports this module: everything else knows the registry's protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray.serve import metrics

from services.runtime.common_metrics import announce_build
from services.runtime.metrics import PrometheusRegistry
from services.runtime.metrics_publisher import MetricsPublisher

__all__ = ["ServeRegistry"]

_REPORTING_S = 0.5  # that a report may take


class ServeRegistry:
    """A `services.runtime.metrics.MetricsRegistry`. Made inside the replica's constructor."""

    def __init__(self, constant_labels: Mapping[str, str]) -> None:
        local = PrometheusRegistry(constant_labels)
        self.counter, self.gauge, self.histogram = local.counter, local.gauge, local.histogram
        announce_build(self)
        self._publisher = MetricsPublisher(local.collector, _RayExporter())
        self._publisher.start()

    async def close(self) -> None:
        """Publishes what the replica has counted to its end, and waits until Ray has reported it.

        Serve kills the process once the replica has closed, and with it what was not reported.
        """
        report_s = ray._config.metrics_report_interval_ms() / 1000
        await self._publisher.close(report_s + _REPORTING_S)


class _RayExporter:
    """A `services.runtime.metrics_publisher.Exporter`."""

    def __init__(self) -> None:
        self._counters: dict[str, metrics.Counter] = {}
        self._gauges: dict[str, metrics.Gauge] = {}

    def count(self, name: str, description: str, labels: Mapping[str, str], more: float) -> None:
        counter = self._counters.get(name)
        if counter is None:
            counter = metrics.Counter(name, description, tuple(labels))
            self._counters[name] = counter
        if more:
            counter.inc(more, tags=dict(labels))
        else:
            counter._record(0.0, tags=dict(labels))  # `inc` itself refuses to add nothing

    def show(self, name: str, description: str, labels: Mapping[str, str], value: float) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = metrics.Gauge(name, description, tuple(labels))
        gauge.set(value, tags=dict(labels))
