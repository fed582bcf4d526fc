"""What the engine tells, as metrics."""

from __future__ import annotations

from services.engine.request import FinishReason, RequestTiming
from services.engine.stats import EngineLoad, RequestStats, StepStats
from services.generation.engine_metrics import EngineMetrics
from services.runtime.metrics import PrometheusRegistry

LABELS = {"service": "generation", "model": "m"}


def _metrics(registry: PrometheusRegistry) -> EngineMetrics:
    metrics = EngineMetrics(registry)
    metrics.recording = True
    return metrics


def _step(**load: int) -> StepStats:
    return StepStats(EngineLoad(num_blocks=8, **load))


def test_gauges_follow_the_last_step() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = _metrics(registry)
    metrics.record_step(_step(num_running=3, num_waiting=2, num_free_blocks=2))
    metrics.record_step(_step(num_running=1, num_waiting=0, num_free_blocks=6))
    sample = registry.collector.get_sample_value
    assert sample("orrery_num_requests_running", LABELS) == 1
    assert sample("orrery_num_requests_waiting", LABELS) == 0
    assert sample("orrery_kv_cache_usage_perc", LABELS) == 0.25


def test_counters_take_what_is_new_since_the_last_step() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = _metrics(registry)
    for queries, hits, preemptions in ((10, 4, 1), (10, 4, 1), (30, 20, 2)):
        metrics.record_step(
            _step(prefix_queries=queries, prefix_hits=hits, num_preemptions=preemptions)
        )
    sample = registry.collector.get_sample_value
    assert sample("orrery_prefix_cache_queries_total", LABELS) == 30
    assert sample("orrery_prefix_cache_hits_total", LABELS) == 20
    assert sample("orrery_num_preemptions_total", LABELS) == 2


def test_latencies_have_one_observation_per_token() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = _metrics(registry)
    step = StepStats(EngineLoad(), first_token_s=[0.2], inter_token_s=[0.01, 0.03])
    metrics.record_step(step)
    sample = registry.collector.get_sample_value
    assert sample("orrery_time_to_first_token_seconds_count", LABELS) == 1
    assert sample("orrery_inter_token_latency_seconds_count", LABELS) == 2


def test_finished_requests_count_by_reason() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = _metrics(registry)
    timing = RequestTiming(queue_s=0.1, total_s=0.9)
    reasons = (FinishReason.STOP, FinishReason.LENGTH)
    metrics.record_finished(RequestStats(reasons, 7, 5, 0, timing))
    sample = registry.collector.get_sample_value
    for reason in ("stop", "length"):
        labels = {**LABELS, "finished_reason": reason}
        assert sample("orrery_request_success_total", labels) == 1
    assert sample("orrery_prompt_tokens_total", LABELS) == 7
    assert sample("orrery_generation_tokens_total", LABELS) == 5
    assert sample("orrery_e2e_request_latency_seconds_sum", LABELS) == 0.9


def test_nothing_is_recorded_while_the_engine_warms_up() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = EngineMetrics(registry)
    metrics.record_step(StepStats(EngineLoad(), first_token_s=[3.0]))
    metrics.record_finished(RequestStats((FinishReason.LENGTH,), 1, 1, 0, RequestTiming()))
    assert not registry.collector.get_sample_value(
        "orrery_time_to_first_token_seconds_count", LABELS
    )
    assert not registry.collector.get_sample_value("orrery_prompt_tokens_total", LABELS)
