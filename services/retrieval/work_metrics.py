"""What searches record: batches and their sizes, documents and what became of them."""

from __future__ import annotations

from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["WorkMetrics"]

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class WorkMetrics:
    """Made once per replica."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._batch_sizes = registry.histogram(
            "retrieval_batch_size", "Searches answered by one pass.", _BATCH_BUCKETS
        )
        self._batch_seconds = registry.histogram(
            "retrieval_batch_seconds", "Time of one pass over the index.", LATENCY_BUCKETS_S
        )
        self._documents = registry.counter(
            "retrieval_documents_total", "Documents sent, by what became of them.", ("status",)
        )
        self._chunks = registry.counter("retrieval_chunks_written_total", "Chunks put in the log.")
        self._stage_seconds = registry.histogram(
            "retrieval_stage_seconds", "Time of a search's stages.", LATENCY_BUCKETS_S, ("stage",)
        )

    def batch(self, num_searches: int, seconds: float) -> None:
        """One pass over the index."""
        self._batch_sizes.observe(num_searches)
        self._batch_seconds.observe(seconds)

    def document(self, status: str, num_chunks: int) -> None:
        """One answered document."""
        self._documents.inc(status=status)
        if status in ("added", "replaced"):
            self._chunks.inc(num_chunks)

    def stage(self, name: str, seconds: float) -> None:
        """One stage of a search."""
        self._stage_seconds.observe(seconds, stage=name)
