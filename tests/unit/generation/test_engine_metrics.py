"""What the engine tells, as metrics."""

from __future__ import annotations

from functools import partial

from services.engine.request import FinishReason, RequestTiming
from services.engine.stats import EngineLoad, RequestStats, StepStats
from services.generation.engine_metrics import EngineMetrics
from services.runtime.metrics import PrometheusRegistry

LABELS = {"service": "generation", "model": "m"}


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _metrics(registry: PrometheusRegistry, clock: Clock | None = None) -> EngineMetrics:
    metrics = EngineMetrics(registry, clock or Clock())
    metrics.begin(EngineLoad(num_blocks=8, num_free_blocks=8))
    return metrics


def _step(**load: int) -> StepStats:
    return StepStats(EngineLoad(num_blocks=8, **load))


def test_load_of_a_busy_engine_is_told_now_and_then_and_of_an_idle_one_at_once() -> None:
    registry, clock = PrometheusRegistry(LABELS), Clock()
    metrics = _metrics(registry, clock)
    sample = registry.collector.get_sample_value

    def told() -> tuple[float | None, ...]:
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return tuple(sample(f"orrery_{name}", LABELS) for name in names)

    metrics.record_step(_step(num_running=3, num_waiting=2, num_free_blocks=2))
    assert told() == (3, 2, 0.75)
    metrics.record_step(_step(num_running=4, num_waiting=1, num_free_blocks=0))
    assert told() == (3, 2, 0.75)
    clock.now_s += 1
    metrics.record_step(_step(num_running=1, num_waiting=0, num_free_blocks=6))
    assert told() == (1, 0, 0.25)
    metrics.record_step(_step(num_free_blocks=8))
    assert told() == (0, 0, 0)


def test_queue_is_full_when_as_many_run_and_wait_as_may() -> None:
    registry, clock = PrometheusRegistry(LABELS), Clock()
    metrics = _metrics(registry, clock)
    usage = partial(
        registry.collector.get_sample_value,
        "orrery_queue_usage_perc",
        {**LABELS, "queue": "requests"},
    )
    metrics.record_step(_step(num_running=4, num_waiting=2, max_running=4, max_waiting=4))
    assert usage() == 0.75
    clock.now_s += 1
    metrics.record_step(_step(num_running=4, max_running=4, max_waiting=0))
    assert usage() == 1.0


def test_pool_shows_its_blocks() -> None:
    registry = PrometheusRegistry(LABELS)
    _metrics(registry).record_step(_step(num_free_blocks=3))
    sample = registry.collector.get_sample_value
    assert sample("orrery_kv_cache_blocks", LABELS) == 8
    assert sample("orrery_kv_cache_free_blocks", LABELS) == 3


def test_counters_take_what_is_new_since_they_were_told() -> None:
    registry, clock = PrometheusRegistry(LABELS), Clock()
    metrics = _metrics(registry, clock)
    for queries, hits, preemptions in ((10, 4, 1), (10, 4, 1), (30, 20, 2)):
        metrics.record_step(
            _step(
                num_running=1,
                prefix_queries=queries,
                prefix_hits=hits,
                num_preemptions=preemptions,
            )
        )
        clock.now_s += 1
    sample = registry.collector.get_sample_value
    assert sample("orrery_prefix_cache_queries_total", LABELS) == 30
    assert sample("orrery_prefix_cache_hits_total", LABELS) == 20
    assert sample("orrery_num_preemptions_total", LABELS) == 2


def test_steps_tell_their_size_and_time_and_empty_ones_nothing() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = _metrics(registry)
    metrics.record_step(
        StepStats(EngineLoad(), num_batched_tokens=70, num_sequences=7, step_s=0.02)
    )
    metrics.record_step(StepStats(EngineLoad(), step_s=0.001))
    sample = registry.collector.get_sample_value
    for name, value in (("tokens_total", 70), ("sequences", 7), ("seconds", 0.02)):
        assert sample(f"orrery_iteration_{name}_sum", LABELS) == value
        assert sample(f"orrery_iteration_{name}_count", LABELS) == 1


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
    timing = RequestTiming(queue_s=0.1, prefill_s=0.2, decode_s=0.6, total_s=0.9)
    reasons = (FinishReason.STOP, FinishReason.LENGTH)
    metrics.record_finished(RequestStats(reasons, 7, 5, 0, timing))
    sample = registry.collector.get_sample_value
    for reason in ("stop", "length"):
        labels = {**LABELS, "finished_reason": reason}
        assert sample("orrery_request_success_total", labels) == 1
    assert sample("orrery_prompt_tokens_total", LABELS) == 7
    assert sample("orrery_generation_tokens_total", LABELS) == 5
    assert sample("orrery_e2e_request_latency_seconds_sum", LABELS) == 0.9
    assert sample("orrery_request_queue_time_seconds_sum", LABELS) == 0.1
    assert sample("orrery_request_prefill_time_seconds_sum", LABELS) == 0.2
    assert sample("orrery_request_decode_time_seconds_sum", LABELS) == 0.6
    assert sample("orrery_requests_orphaned_total", LABELS) == 0


def test_requests_whose_caller_left_count_as_orphaned() -> None:
    registry = PrometheusRegistry(LABELS)
    reasons = (FinishReason.CANCELLED, FinishReason.CANCELLED)  # one request, two completions
    _metrics(registry).record_finished(RequestStats(reasons, 7, 5, 0, RequestTiming()))
    assert registry.collector.get_sample_value("orrery_requests_orphaned_total", LABELS) == 1


def test_every_reason_to_end_is_there_before_a_request_ends() -> None:
    registry = PrometheusRegistry(LABELS)
    _metrics(registry)
    for reason in FinishReason:
        labels = {**LABELS, "finished_reason": reason.value}
        assert registry.collector.get_sample_value("orrery_request_success_total", labels) == 0


def test_engine_that_has_warmed_up_shows_its_pool_and_counts_from_there() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = EngineMetrics(registry, Clock())
    metrics.begin(EngineLoad(num_blocks=8, num_free_blocks=8, prefix_queries=5))
    sample = registry.collector.get_sample_value
    assert sample("orrery_kv_cache_blocks", LABELS) == 8
    assert sample("orrery_num_requests_running", LABELS) == 0
    metrics.record_step(_step(prefix_queries=12))
    assert sample("orrery_prefix_cache_queries_total", LABELS) == 7


def test_nothing_is_recorded_while_the_engine_warms_up() -> None:
    registry = PrometheusRegistry(LABELS)
    metrics = EngineMetrics(registry)
    metrics.record_step(StepStats(EngineLoad(), first_token_s=[3.0]))
    metrics.record_finished(RequestStats((FinishReason.LENGTH,), 1, 1, 0, RequestTiming()))
    assert not registry.collector.get_sample_value(
        "orrery_time_to_first_token_seconds_count", LABELS
    )
    assert not registry.collector.get_sample_value("orrery_prompt_tokens_total", LABELS)
