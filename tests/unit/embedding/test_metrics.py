"""What batches, the queue and the cache tell, as metrics."""

from __future__ import annotations

from services.embedding.batcher import BatchStats
from services.embedding.metrics import BatchMetrics, CacheMetrics, RequestMetrics
from services.runtime.metrics import PrometheusRegistry

LABELS = {"service": "embedding", "model": "m"}


def test_batches_tell_their_size_what_was_wasted_and_who_left() -> None:
    registry = PrometheusRegistry(LABELS)
    BatchMetrics(registry).of("embed", 100).batch_finished(
        BatchStats(
            num_inputs=4,
            num_callers_inputs=7,
            num_orphaned=2,
            num_tokens=50,
            num_padded_tokens=64,
            queue_s=[0.1] * 4,
            compute_s=0.5,
            failed=True,
        )
    )
    sample, labels = registry.collector.get_sample_value, {**LABELS, "kind": "embed"}
    assert sample("orrery_embedding_batch_inputs_sum", labels) == 4
    assert sample("orrery_embedding_batch_tokens_sum", labels) == 50
    assert sample("orrery_embedding_batch_seconds_sum", labels) == 0.5
    assert sample("orrery_embedding_padding_tokens_total", labels) == 14
    assert sample("orrery_embedding_repeated_inputs_total", labels) == 3
    assert sample("orrery_embedding_failed_batches_total", labels) == 1
    assert sample("orrery_requests_orphaned_total", LABELS) == 2


def test_each_queue_tells_how_full_it_is() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = BatchMetrics(registry)
    metrics.of("embed", 100).queue_changed(num_waiting=50, num_running=8)
    metrics.of("image", 20).queue_changed(num_waiting=5, num_running=1)
    sample = registry.collector.get_sample_value
    assert sample("orrery_embedding_inputs_waiting", {**LABELS, "kind": "embed"}) == 50
    assert sample("orrery_embedding_inputs_running", {**LABELS, "kind": "image"}) == 1
    assert sample("orrery_queue_usage_perc", {**LABELS, "queue": "embed"}) == 0.5
    assert sample("orrery_queue_usage_perc", {**LABELS, "queue": "image"}) == 0.25


def test_answered_calls_count_inputs_tokens_and_their_wait() -> None:
    registry = PrometheusRegistry(LABELS)
    RequestMetrics(registry).answered(num_inputs=3, num_tokens=20, queue_s=0.25)
    sample = registry.collector.get_sample_value
    assert sample("orrery_embedding_inputs_total", LABELS) == 3
    assert sample("orrery_prompt_tokens_total", LABELS) == 20
    assert sample("orrery_request_queue_time_seconds_sum", LABELS) == 0.25


def test_cache_tells_hits_misses_and_whether_redis_answers() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = CacheMetrics(registry)
    sample = registry.collector.get_sample_value
    metrics.cache_available(True)
    assert sample("orrery_redis_available", LABELS) == 1
    metrics.cache_looked_up(5, 2)
    metrics.cache_failed()
    metrics.cache_writes_dropped(4)
    metrics.cache_available(False)
    assert sample("orrery_embedding_cache_hits_total", LABELS) == 5
    assert sample("orrery_embedding_cache_misses_total", LABELS) == 2
    assert sample("orrery_embedding_cache_failures_total", LABELS) == 1
    assert sample("orrery_embedding_cache_dropped_writes_total", LABELS) == 4
    assert sample("orrery_redis_available", LABELS) == 0
