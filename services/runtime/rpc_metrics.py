"""Counts and times the RPCs of a service, by method and gRPC status."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pool
from grpc import StatusCode

from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["RpcMetrics"]

# Told of at zero, for a rate knows no first value: what alerts ask for has to be there before.
_TOLD_FROM_THE_START = (StatusCode.OK, StatusCode.INTERNAL, StatusCode.UNAVAILABLE)


class RpcMetrics:
    """Made once per servicer; `observe` goes into `services.runtime.rpc.RpcPolicy`.

    `services`: the full names of those of the contract whose RPCs it counts.
    """

    def __init__(self, registry: MetricsRegistry, services: Iterable[str] = ()) -> None:
        self._calls = registry.counter(
            "rpc_requests_total", "Finished RPCs by gRPC status.", ("method", "status")
        )
        self._durations = registry.histogram(
            "rpc_duration_seconds", "From arrival to status.", LATENCY_BUCKETS_S, ("method",)
        )
        pool = descriptor_pool.Default()
        for method in [m.name for name in services for m in pool.FindServiceByName(name).methods]:
            for status in _TOLD_FROM_THE_START:
                self._calls.inc(0, method=method, status=status.name)

    def observe(self, method: str, status: str, duration_s: float) -> None:
        """Records one finished call."""
        self._calls.inc(method=method, status=status)
        self._durations.observe(duration_s, method=method)
