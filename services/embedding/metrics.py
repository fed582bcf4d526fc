"""What the service tells about itself: batches, queue, tokens, cache, precision.

Knows no exporter.
"""

from __future__ import annotations

from services.embedding.batcher import BatchStats
from services.runtime import common_metrics
from services.runtime.metrics import LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["BatchMetrics", "CacheMetrics", "RequestMetrics"]

_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKEN_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class RequestMetrics:
    """Inputs and tokens of answered calls, and how long a call waited for its first batch; the
    first two also for the load RPC.
    """

    def __init__(self, registry: MetricsRegistry) -> None:
        self.num_inputs = 0
        self.num_tokens = 0
        self._queue_time = common_metrics.queue_time(registry)
        self._inputs = registry.counter("embedding_inputs_total", "Inputs of answered calls.")
        self._tokens = common_metrics.prompt_tokens(registry)
        self._dtype = registry.gauge(
            "embedding_dtype_info", "1 for the precision the model computes in.", ("dtype",)
        )

    def answered(self, num_inputs: int, num_tokens: int, queue_s: float) -> None:
        self.num_inputs += num_inputs
        self.num_tokens += num_tokens
        self._inputs.inc(num_inputs)
        self._tokens.inc(num_tokens)
        self._queue_time.observe(queue_s)

    def computes_in(self, dtype: str) -> None:
        self._dtype.set(1.0, dtype=dtype)


class BatchMetrics:
    """A `services.embedding.batcher.BatchObserver` for each kind of work, made once for all."""

    def __init__(self, registry: MetricsRegistry) -> None:
        labels = ("kind",)
        self.size = registry.histogram(
            "embedding_batch_inputs", "Distinct inputs in a batch.", _SIZE_BUCKETS, labels
        )
        self.tokens = registry.histogram(
            "embedding_batch_tokens", "Tokens in a batch, no padding.", _TOKEN_BUCKETS, labels
        )
        self.seconds = registry.histogram(
            "embedding_batch_seconds", "Time to compute a batch.", LATENCY_BUCKETS_S, labels
        )
        self.padding = registry.counter(
            "embedding_padding_tokens_total", "Tokens computed only to fill batches.", labels
        )
        self.repeated = registry.counter(
            "embedding_repeated_inputs_total", "Inputs answered by another's computation.", labels
        )
        self.failed = registry.counter(
            "embedding_failed_batches_total", "Batches that failed.", labels
        )
        self.waiting = registry.gauge(
            "embedding_inputs_waiting", "Distinct inputs in the queue.", labels
        )
        self.running = registry.gauge(
            "embedding_inputs_running", "Distinct inputs in the batch under way.", labels
        )
        self.queue_usage = common_metrics.queue_usage(registry)
        self.orphaned = common_metrics.requests_orphaned(registry)

    def of(self, kind: str, max_waiting: int) -> _KindOfBatch:
        """The observer of one batcher, which refuses what more than `max_waiting` wait before."""
        return _KindOfBatch(self, kind, max_waiting)


class _KindOfBatch:
    def __init__(self, metrics: BatchMetrics, kind: str, max_waiting: int) -> None:
        self._metrics = metrics
        self._kind = kind
        self._max_waiting = max_waiting
        self.queue_changed(0, 0)
        for counter in (metrics.padding, metrics.repeated, metrics.failed):
            counter.inc(0, kind=kind)  # a rate knows no first value

    def batch_finished(self, stats: BatchStats) -> None:
        metrics, kind = self._metrics, self._kind
        metrics.size.observe(stats.num_inputs, kind=kind)
        metrics.tokens.observe(stats.num_tokens, kind=kind)
        metrics.seconds.observe(stats.compute_s, kind=kind)
        metrics.padding.inc(stats.num_padded_tokens - stats.num_tokens, kind=kind)
        metrics.repeated.inc(max(0, stats.num_callers_inputs - stats.num_inputs), kind=kind)
        metrics.failed.inc(float(stats.failed), kind=kind)
        metrics.orphaned.inc(stats.num_orphaned)

    def queue_changed(self, num_waiting: int, num_running: int) -> None:
        metrics, kind = self._metrics, self._kind
        metrics.waiting.set(num_waiting, kind=kind)
        metrics.running.set(num_running, kind=kind)
        metrics.queue_usage.set(num_waiting / self._max_waiting, queue=kind)


class CacheMetrics:
    """A `services.embedding.cache.CacheObserver`; also counts for the load RPC."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.num_hits = 0
        self.num_misses = 0
        self._hits = registry.counter("embedding_cache_hits_total", "Vectors from the cache.")
        self._misses = registry.counter("embedding_cache_misses_total", "Vectors not in the cache.")
        self._available = common_metrics.redis_available(registry)
        self._failures = registry.counter(
            "embedding_cache_failures_total", "Lookups and writes that failed or took too long."
        )
        self._dropped = registry.counter(
            "embedding_cache_dropped_writes_total", "Vectors not kept: too many at once."
        )

    def cache_looked_up(self, num_hits: int, num_misses: int) -> None:
        self.num_hits += num_hits
        self.num_misses += num_misses
        self._hits.inc(num_hits)
        self._misses.inc(num_misses)

    def cache_available(self, available: bool) -> None:
        self._available.set(float(available))

    def cache_failed(self) -> None:
        self._failures.inc()

    def cache_writes_dropped(self, num_vectors: int) -> None:
        self._dropped.inc(num_vectors)
