"""The seam for metrics: what a service records, without knowing who exports it.

A registry is made with the labels that never change (`service`, `model`) and puts them on every
metric. In one process, and in tests, `PrometheusRegistry` exports; under Serve it is
`services.runtime.serve_metrics.ServeRegistry`. Names are vLLM's where the thing is the same, with
the prefix `orrery_`. Recording is thread-safe: the engine records from its own thread.

What several services have is declared in `common_metrics.py`, the rest in each one's `metrics.py`;
docs/metrics.md lists them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import prometheus_client

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
    """Only grows. One without labels is there from the start, at 0; one with labels is once it was
    told: by 0, to be there before the first that counts, since a rate knows no first value.
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
    """Exports through `prometheus_client`; `collector` is what an exporter or a test reads."""

    def __init__(self, constant_labels: Mapping[str, str]) -> None:
        self._constant = dict(constant_labels)
        self.collector = prometheus_client.CollectorRegistry()

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        metric = prometheus_client.Counter(
            PREFIX + name, description, self._names(labels), registry=self.collector
        )
        counter = _PrometheusCounter(metric, self._constant)
        if not labels:
            counter.inc(0.0)
        return counter

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        metric = prometheus_client.Gauge(
            PREFIX + name, description, self._names(labels), registry=self.collector
        )
        return _PrometheusGauge(metric, self._constant)

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
        return _PrometheusHistogram(metric, self._constant)

    def _names(self, labels: Sequence[str]) -> tuple[str, ...]:
        return (*self._constant, *labels)


class _PrometheusCounter:
    def __init__(self, metric: prometheus_client.Counter, constant: Mapping[str, str]) -> None:
        self._metric, self._constant = metric, constant

    def inc(self, value: float = 1.0, **labels: str) -> None:
        self._metric.labels(**self._constant, **labels).inc(value)


class _PrometheusGauge:
    def __init__(self, metric: prometheus_client.Gauge, constant: Mapping[str, str]) -> None:
        self._metric, self._constant = metric, constant

    def set(self, value: float, **labels: str) -> None:
        self._metric.labels(**self._constant, **labels).set(value)


class _PrometheusHistogram:
    def __init__(self, metric: prometheus_client.Histogram, constant: Mapping[str, str]) -> None:
        self._metric, self._constant = metric, constant

    def observe(self, value: float, **labels: str) -> None:
        self._metric.labels(**self._constant, **labels).observe(value)
