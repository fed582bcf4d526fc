"""What a replica counts of its log and of what it holds in memory. Knows no exporter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.retrieval.log.state import CollectionView
from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, Counter, Gauge, Histogram, MetricsRegistry

__all__ = ["LogMetrics"]


@dataclass(frozen=True, slots=True)
class LogMetrics:
    redis_available: Gauge
    log_available: Gauge
    applied_lag_s: Gauge
    entries_applied: Counter
    appended: Counter
    snapshot_s: Histogram
    snapshot_bytes: Gauge
    snapshot_failures: Counter
    snapshots_rejected: Counter
    merge_failures: Counter
    collections: Gauge
    documents: Gauge
    chunks: Gauge
    segments: Gauge
    generation: Gauge

    def hold(self, views: Iterable[CollectionView]) -> None:
        """What searches see now."""
        generations = [view.generation for view in views]
        self.collections.set(len(generations))
        self.documents.set(sum(each.num_documents for each in generations))
        self.chunks.set(sum(each.num_chunks for each in generations))
        self.segments.set(sum(each.num_segments for each in generations))
        self.generation.set(sum(each.number for each in generations))

    @staticmethod
    def of(registry: MetricsRegistry) -> LogMetrics:
        return LogMetrics(
            redis_available=common_metrics.redis_available(registry),
            log_available=registry.gauge(
                "retrieval_log_available", "1 while the log can be read and written, else 0."
            ),
            applied_lag_s=registry.gauge(
                "retrieval_applied_lag_seconds",
                "Age of the log's last entry beyond the last one that searches see.",
            ),
            entries_applied=registry.counter(
                "retrieval_log_entries_applied_total", "Entries of the log that were applied."
            ),
            appended=registry.counter(
                "retrieval_log_appends_total", "Entries that this replica appended."
            ),
            snapshot_s=registry.histogram(
                "retrieval_snapshot_seconds", "Time to write a snapshot.", LATENCY_BUCKETS_S
            ),
            snapshot_bytes=registry.gauge(
                "retrieval_snapshot_bytes", "Size of the last snapshot that was written here."
            ),
            snapshot_failures=registry.counter(
                "retrieval_snapshot_failures_total", "Snapshots that could not be written."
            ),
            snapshots_rejected=registry.counter(
                "retrieval_snapshots_rejected_total", "Snapshots found torn, corrupt or foreign."
            ),
            merge_failures=registry.counter(
                "retrieval_merge_failures_total", "Merges of index segments that failed."
            ),
            collections=registry.gauge("retrieval_index_collections", "Collections in memory."),
            documents=registry.gauge("retrieval_index_documents", "Documents that searches see."),
            chunks=registry.gauge("retrieval_index_chunks", "Chunks that searches see."),
            segments=registry.gauge("retrieval_index_segments", "Segments of all indexes."),
            generation=registry.gauge(
                "retrieval_index_generation", "Generations of all collections' indexes, added up."
            ),
        )
