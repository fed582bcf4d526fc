"""Counts and times the RPCs of a service, by method and gRPC status."""

from __future__ import annotations

from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["RpcMetrics"]


class RpcMetrics:
    """Made once per service; `observe` goes into `services.runtime.rpc.RpcPolicy`."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._calls = registry.counter(
            "rpc_requests_total", "Finished RPCs by gRPC status.", ("method", "status")
        )
        self._durations = registry.histogram(
            "rpc_duration_seconds", "From arrival to status.", LATENCY_BUCKETS_S, ("method",)
        )

    def observe(self, method: str, status: str, duration_s: float) -> None:
        """Records one finished call."""
        self._calls.inc(method=method, status=status)
        self._durations.observe(duration_s, method=method)
