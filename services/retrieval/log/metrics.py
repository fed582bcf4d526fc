"""What a replica counts. Names come with the registry's prefix and labels."""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime.metrics import LATENCY_BUCKETS_S, Counter, Gauge, Histogram, MetricsRegistry

__all__ = ["LogMetrics"]


@dataclass(frozen=True, slots=True)
class LogMetrics:
    log_available: Gauge
    applied_lag_s: Gauge
    entries_applied: Counter
    appended: Counter
    snapshot_s: Histogram
    snapshot_bytes: Gauge
    snapshot_failures: Counter
    snapshots_rejected: Counter
    merge_failures: Counter

    @staticmethod
    def of(registry: MetricsRegistry) -> LogMetrics:
        return LogMetrics(
            log_available=registry.gauge(
                "retrieval_log_available", "1 while the log can be read and written, else 0"
            ),
            applied_lag_s=registry.gauge(
                "retrieval_applied_lag_seconds",
                "Age of the log's last entry beyond the last one that searches see",
            ),
            entries_applied=registry.counter(
                "retrieval_log_entries_applied_total", "Entries of the log that were applied"
            ),
            appended=registry.counter(
                "retrieval_log_appends_total", "Entries that this replica appended"
            ),
            snapshot_s=registry.histogram(
                "retrieval_snapshot_seconds", "Time to write a snapshot", LATENCY_BUCKETS_S
            ),
            snapshot_bytes=registry.gauge(
                "retrieval_snapshot_bytes", "Size of the last snapshot that was written here"
            ),
            snapshot_failures=registry.counter(
                "retrieval_snapshot_failures_total", "Snapshots that could not be written"
            ),
            snapshots_rejected=registry.counter(
                "retrieval_snapshots_rejected_total", "Snapshots found torn, corrupt or foreign"
            ),
            merge_failures=registry.counter(
                "retrieval_merge_failures_total", "Merges of index segments that failed"
            ),
        )
