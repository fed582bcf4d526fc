"""The seam for metrics: what a service records, without knowing who exports it.

A registry is made with the labels that never change (`service`, `model`) and puts them on every
metric. `PrometheusRegistry` keeps what is recorded; under Serve a
`services.runtime.serve_metrics.ServeRegistry` publishes it now and then. Names are vLLM's where the
thing is the same, with the prefix `orrery_`. Recording is thread-safe: the engine records from its
own thread.

What several services have is declared in `common_metrics.py`, the rest in each one's `metrics.py`;
docs/metrics.md lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase

__all__ = [
    "LATENCY_BUCKETS_S",
    "PREFIX",
    "TOKEN_LATENCY_BUCKETS_S",
    "Counter",
    "Gauge",
    "Histogram",
    "MetricsRegistry",
    "PrometheusRegistry",
]

PREFIX = "orrery_"

# Upper bounds in seconds. Fixed, so that dashboards and alert rules can name them.
TOKEN_LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
)  # fmt: skip
LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip


class Counter(Protocol):
    """Only grows. Without labels it is there from the start; with labels, once it was told: by 0,
    to be there before the first that counts, since a rate knows no first value.
    """

    def inc(self, value: float = 1.0, **labels: str) -> None: ...


class Gauge(Protocol):
    """Goes up and down."""

    def set(self, value: float, **labels: str) -> None: ...


class Histogram(Protocol):
    """Counts observations by bucket."""

    def observe(self, value: float, **labels: str) -> None: ...


class MetricsRegistry(Protocol):
    """Makes metrics. `labels` names those given with each record; names come without prefix."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter: ...

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge: ...

    def histogram(
        self, name: str, description: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram: ...


class PrometheusRegistry:
    """Keeps metrics with `prometheus_client`; `collector` is what an exporter or a test reads."""

    def __init__(self, constant_labels: Mapping[str, str]) -> None:
        self._constant = dict(constant_labels)
        self.collector = prometheus_client.CollectorRegistry()

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        metric = prometheus_client.Counter(
            PREFIX + name, description, self._names(labels), registry=self.collector
        )
        series = _Series(metric, self._constant)
        if not labels:
            series.of({})
        return _Counter(series)

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        metric = prometheus_client.Gauge(
            PREFIX + name, description, self._names(labels), registry=self.collector
        )
        return _Gauge(_Series(metric, self._constant))

    def histogram(
        self, name: str, description: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        metric = prometheus_client.Histogram(
            PREFIX + name,
            description,
            self._names(labels),
            buckets=tuple(buckets),
            registry=self.collector,
        )
        series = _Series(metric, self._constant)
        if not labels:
            series.of({})
        return _Histogram(series)

    def _names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*self._constant, *labels)


MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


class _Series(Generic[MetricT]):
    """The series of a metric, by the labels given with a record."""

    def __init__(self, metric: MetricT, constant: Mapping[str, str]) -> None:
        self._metric = metric
        self._constant = constant
        self._plain: MetricT | None = None

    def of(self, labels: Mapping[str, str]) -> MetricT:
        if labels:
            return self._metric.labels(**self._constant, **labels)
        if self._plain is None:
            self._plain = self._metric.labels(**self._constant)
        return self._plain


class _Counter:
    def __init__(self, series: _Series[prometheus_client.Counter]) -> None:
        self._series = series

    def inc(self, value: float = 1.0, **labels: str) -> None:
        self._series.of(labels).inc(value)


class _Gauge:
    def __init__(self, series: _Series[prometheus_client.Gauge]) -> None:
        self._series = series

    def set(self, value: float, **labels: str) -> None:
        self._series.of(labels).set(value)


class _Histogram:
    def __init__(self, series: _Series[prometheus_client.Histogram]) -> None:
        self._series = series

    def observe(self, value: float, **labels: str) -> None:
        self._series.of(labels).observe(value)
