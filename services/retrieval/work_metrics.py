"""What searches record: batches and their sizes, documents and what became of them."""

from __future__ import annotations

from collections.abc import Iterable

from services.retrieval.timeline import Stage
from services.retrieval.types import UpsertStatus
from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["WorkMetrics"]

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class WorkMetrics:
    """Made once per replica, which refuses searches when `max_waiting` of them wait."""

    def __init__(self, registry: MetricsRegistry, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._waiting = registry.gauge(
            "retrieval_searches_waiting", "Searches that wait for a pass over the index."
        )
        self._queue_usage = common_metrics.queue_usage(registry)
        self.queue(0)
        self._batch_sizes = registry.histogram(
            "retrieval_batch_size", "Searches answered by one pass.", _BATCH_BUCKETS
        )
        self._batch_seconds = registry.histogram(
            "retrieval_batch_seconds", "Time of one pass over the index.", LATENCY_BUCKETS_S
        )
        self._documents = registry.counter(
            "retrieval_documents_total", "Documents sent, by what became of them.", ("status",)
        )
        for status in UpsertStatus:
            self._documents.inc(0, status=status)  # a rate knows no first value
        self._chunks = registry.counter("retrieval_chunks_written_total", "Chunks put in the log.")
        self._stage_seconds = registry.histogram(
            "retrieval_stage_seconds", "Time of a search's stages.", LATENCY_BUCKETS_S, ("stage",)
        )

    def batch(self, num_searches: int, seconds: float) -> None:
        """One pass over the index."""
        self._batch_sizes.observe(num_searches)
        self._batch_seconds.observe(seconds)

    def queue(self, num_waiting: int) -> None:
        """So many searches wait now."""
        self._waiting.set(num_waiting)
        self._queue_usage.set(num_waiting / self._max_waiting, queue="searches")

    def document(self, status: UpsertStatus, num_chunks: int) -> None:
        """One answered document."""
        self._documents.inc(status=status)
        if status in (UpsertStatus.ADDED, UpsertStatus.REPLACED):
            self._chunks.inc(num_chunks)

    def stages(self, stages: Iterable[Stage]) -> None:
        """Those of a call that searched."""
        for stage in stages:
            self._stage_seconds.observe(stage.duration_ns / 1e9, stage=stage.name)
