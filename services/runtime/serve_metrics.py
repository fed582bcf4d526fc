"""The metrics registry of a Serve replica: Ray's metrics agent exports, beside Ray's own.

Ray puts `ray_` before every name and adds the labels application, deployment and replica. Only
an `app.py` imports this module: everything else knows the registry's protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray.serve import metrics

from services.runtime.common_metrics import announce_build
from services.runtime.gauge_keeper import GaugeKeeper
from services.runtime.metrics import PREFIX, Counter, Gauge, Histogram

__all__ = ["ServeRegistry"]


class ServeRegistry:
    """A `services.runtime.metrics.MetricsRegistry`. Made inside the replica's constructor."""

    def __init__(self, constant_labels: Mapping[str, str]) -> None:
        self._constant = dict(constant_labels)
        self._keeper = GaugeKeeper()
        announce_build(self)

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        metric = metrics.Counter(PREFIX + name, description, self._names(labels))
        metric.set_default_tags(dict(self._constant))
        counter = _ServeCounter(metric)
        if not labels:
            counter.inc(0.0)
        return counter

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        metric = metrics.Gauge(PREFIX + name, description, self._names(labels))
        metric.set_default_tags(dict(self._constant))
        return self._keeper.keep(_ServeGauge(metric))

    def histogram(
        self, name: str, description: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        metric = metrics.Histogram(
            PREFIX + name, description, boundaries=list(buckets), tag_keys=self._names(labels)
        )
        metric.set_default_tags(dict(self._constant))
        return _ServeHistogram(metric)

    def _names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*self._constant, *labels)


class _ServeCounter:
    def __init__(self, metric: metrics.Counter) -> None:
        self._metric = metric
        self._begun: set[tuple[str, ...]] = set()

    def inc(self, value: float = 1.0, **labels: str) -> None:
        if value:
            self._metric.inc(value, tags=labels)
        elif (series := tuple(labels.values())) not in self._begun:
            self._begun.add(series)
            self._metric._record(0.0, tags=labels)  # `inc` itself refuses to add nothing


class _ServeGauge:
    def __init__(self, metric: metrics.Gauge) -> None:
        self._metric = metric

    def set(self, value: float, **labels: str) -> None:
        self._metric.set(value, tags=labels)


class _ServeHistogram:
    def __init__(self, metric: metrics.Histogram) -> None:
        self._metric = metric

    def observe(self, value: float, **labels: str) -> None:
        self._metric.observe(value, tags=labels)
