"""What a shard tells about itself. Knows no exporter."""

from __future__ import annotations

from services.runtime.metrics import TOKEN_LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["ShardMetrics"]


class ShardMetrics:
    """Made once per shard."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._rows = registry.counter(
            "moe_shard_computed_rows_total", "Rows that went through experts here."
        )
        self._compute = registry.histogram(
            "moe_shard_compute_seconds", "Time of one call's computing.", TOKEN_LATENCY_BUCKETS_S
        )
        self._queue = registry.histogram(
            "moe_shard_queue_seconds", "Time of one call in line.", TOKEN_LATENCY_BUCKETS_S
        )
        self._experts = registry.gauge("moe_shard_experts", "Experts that the shard holds.")
        self._bytes = registry.gauge(
            "moe_shard_expert_bytes", "Memory of the experts that are held."
        )

    def computed(self, num_rows: int, queue_s: float, compute_s: float) -> None:
        """One call is done."""
        self._rows.inc(num_rows)
        self._queue.observe(queue_s)
        self._compute.observe(compute_s)

    def holds(self, num_experts: int, num_bytes: int) -> None:
        """Experts came or went."""
        self._experts.set(num_experts)
        self._bytes.set(num_bytes)
