"""Instruments that several services have: each is declared here, once, and fed where it arises.

A service's own instruments are declared in its `metrics.py`. Knows nothing of who exports them.
"""

from __future__ import annotations

import platform
from importlib.metadata import version

from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    Counter,
    Gauge,
    Histogram,
    MetricsRegistry,
)

__all__ = [
    "announce_build",
    "end_to_end_time",
    "prompt_tokens",
    "queue_time",
    "queue_usage",
    "redis_available",
    "redis_memory_usage",
    "requests_orphaned",
]


def announce_build(registry: MetricsRegistry) -> None:
    """Says which build this process runs. A registry calls it when it is made."""
    info = registry.gauge("build_info", "1 for the build that runs.", ("version", "python"))
    info.set(1.0, version=version("orrery"), python=platform.python_version())


def end_to_end_time(registry: MetricsRegistry) -> Histogram:
    return registry.histogram(
        "e2e_request_latency_seconds",
        "From arrival to the last token, or to the picture's PNG.",
        LATENCY_BUCKETS_S,
    )


def queue_time(registry: MetricsRegistry) -> Histogram:
    return registry.histogram(
        "request_queue_time_seconds",
        "From arrival until the first step or batch that works on it.",
        LATENCY_BUCKETS_S,
    )


def queue_usage(registry: MetricsRegistry) -> Gauge:
    """`queue` names one of a service's queues."""
    return registry.gauge(
        "queue_usage_perc",
        "Share of a queue's places that are taken, from 0 to 1; then callers are refused.",
        ("queue",),
    )


def prompt_tokens(registry: MetricsRegistry) -> Counter:
    return registry.counter(
        "prompt_tokens_total", "Tokens of prompts and of embedded texts, cached ones included."
    )


def requests_orphaned(registry: MetricsRegistry) -> Counter:
    return registry.counter(
        "requests_orphaned_total",
        "Requests, pictures and inputs whose caller left before the end: what they held is freed.",
    )


def redis_available(registry: MetricsRegistry) -> Gauge:
    return registry.gauge("redis_available", "1 while Redis answers this service, else 0.")


def redis_memory_usage(registry: MetricsRegistry) -> Gauge:
    return registry.gauge(
        "redis_memory_usage_perc",
        "Share of Redis' `maxmemory` in use, from 0 to 1; then it refuses writes. 0 without limit.",
    )
