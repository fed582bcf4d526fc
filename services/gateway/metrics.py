"""Counts and times HTTP requests, by route and status. Knows nothing of who exports them."""

from __future__ import annotations

from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["HttpMetrics"]


class HttpMetrics:
    """Made once per gateway; its methods go into `services.gateway.middleware.RequestGuard`."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._requests = registry.counter(
            "http_requests_total", "Finished HTTP requests by status.", ("route", "status")
        )
        self._durations = registry.histogram(
            "http_request_duration_seconds",
            "From arrival to the last byte.",
            LATENCY_BUCKETS_S,
            ("route",),
        )
        self._queue_usage = common_metrics.queue_usage(registry)
        for queue in ("requests", "open_requests"):
            self.usage(queue, 0.0)

    def observe(self, route: str, status: int, duration_s: float) -> None:
        """Records one finished request. `route` is a template, so that labels stay few."""
        self._requests.inc(route=route, status=str(status))
        self._durations.observe(duration_s, route=route)

    def usage(self, queue: str, share: float) -> None:
        """So much of the places for requests is taken."""
        self._queue_usage.set(share, queue=queue)
