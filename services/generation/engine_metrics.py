"""Exports what the engine tells about itself, under vLLM's names where the thing is the same.

Called from the engine's thread after every step: it records and returns. Knows no exporter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.engine.request import FinishReason
from services.engine.stats import EngineLoad, RequestStats, StepStats
from services.runtime import common_metrics
from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    TOKEN_LATENCY_BUCKETS_S,
    MetricsRegistry,
)

__all__ = ["EngineMetrics"]

# An exporter is asked every few seconds: a busy engine's load is told no more often than this.
_LOAD_INTERVAL_S = 0.25
_TOKEN_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_SEQUENCE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class EngineMetrics:
    """A `services.engine.stats.StatsSink` over a metrics registry. Mute until `begin`: what an
    engine computes to warm up is nobody's latency. `clock` in seconds.
    """

    def __init__(
        self, registry: MetricsRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recording = False
        self._load = _LoadMetrics(registry)
        self._steps = _StepMetrics(registry)
        self._requests = _RequestMetrics(registry)
        self._clock = clock
        self._load_due_s = 0.0

    def begin(self, load: EngineLoad) -> None:
        """The engine is ready for requests, and has done `load` so far."""
        self._recording = True
        self._load.begin(load)

    def record_step(self, stats: StepStats) -> None:
        """One step's load, tokens and latencies."""
        if not self._recording:
            return
        load, now_s = stats.load, self._clock()
        is_idle = load.num_running == load.num_waiting == 0  # the last that is told for a while
        if is_idle or now_s >= self._load_due_s:
            self._load_due_s = now_s + _LOAD_INTERVAL_S
            self._load.record(load)
        self._steps.record(stats)

    def record_finished(self, stats: RequestStats) -> None:
        """One request that ended, for whatever reason."""
        if self._recording:
            self._requests.record(stats)


class _LoadMetrics:
    """The engine counts since its start; a metrics counter is told what is new."""

    def __init__(self, registry: MetricsRegistry) -> None:
        gauge, counter = registry.gauge, registry.counter
        self._last = EngineLoad()
        self._running = gauge("num_requests_running", "Sequences in the running batch.")
        self._waiting = gauge("num_requests_waiting", "Requests in the queue.")
        self._queue_usage = common_metrics.queue_usage(registry)
        self._usage = gauge("kv_cache_usage_perc", "Share of the KV blocks in use, from 0 to 1.")
        self._blocks = gauge("kv_cache_blocks", "Blocks of the KV cache.")
        self._free_blocks = gauge(
            "kv_cache_free_blocks", "Blocks that nobody refers to; they may hold reusable prefixes."
        )
        self._queries = counter(
            "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache."
        )
        self._hits = counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.")
        self._preemptions = counter(
            "num_preemptions_total", "Sequences put back into the queue for want of blocks."
        )

    def begin(self, load: EngineLoad) -> None:
        self._last = load
        self.record(load)

    def record(self, load: EngineLoad) -> None:
        last, self._last = self._last, load
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        # Those that run count, too: without a queue, the places that are taken are theirs.
        taken = _share(load.num_running + load.num_waiting, load.max_running + load.max_waiting)
        self._queue_usage.set(min(1.0, taken), queue="requests")
        self._usage.set(_share(load.num_blocks - load.num_free_blocks, load.num_blocks))
        self._blocks.set(load.num_blocks)
        self._free_blocks.set(load.num_free_blocks)
        self._queries.inc(load.prefix_queries - last.prefix_queries)
        self._hits.inc(load.prefix_hits - last.prefix_hits)
        self._preemptions.inc(load.num_preemptions - last.num_preemptions)


class _StepMetrics:
    def __init__(self, registry: MetricsRegistry) -> None:
        histogram = registry.histogram
        self._tokens = histogram(
            "iteration_tokens_total", "Tokens computed by one step.", _TOKEN_BUCKETS
        )
        self._sequences = histogram(
            "iteration_sequences", "Sequences that one step computed.", _SEQUENCE_BUCKETS
        )
        self._seconds = histogram("iteration_seconds", "Time of one step.", TOKEN_LATENCY_BUCKETS_S)
        self._first_token = histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", LATENCY_BUCKETS_S
        )
        self._inter_token = histogram(
            "inter_token_latency_seconds", "From one token to the next.", TOKEN_LATENCY_BUCKETS_S
        )

    def record(self, stats: StepStats) -> None:
        if stats.num_batched_tokens:
            self._tokens.observe(stats.num_batched_tokens)
            self._sequences.observe(stats.num_sequences)
        if stats.num_batched_tokens and stats.step_s:  # vLLM does not say how long a step took
            self._seconds.observe(stats.step_s)
        for seconds in stats.first_token_s:
            self._first_token.observe(seconds)
        for seconds in stats.inter_token_s:
            self._inter_token.observe(seconds)


class _RequestMetrics:
    def __init__(self, registry: MetricsRegistry) -> None:
        counter, histogram = registry.counter, registry.histogram
        self._prompt_tokens = common_metrics.prompt_tokens(registry)
        self._generated = counter(
            "generation_tokens_total", "Tokens generated by the requests that ended."
        )
        self._success = counter(
            "request_success_total", "Completions that ended, by why.", ("finished_reason",)
        )
        for reason in FinishReason:
            self._success.inc(0, finished_reason=reason.value)
        self._orphaned = common_metrics.requests_orphaned(registry)
        self._end_to_end = common_metrics.end_to_end_time(registry)
        self._queue_time = common_metrics.queue_time(registry)
        self._prefill_time = histogram(
            "request_prefill_time_seconds",
            "From the first step to the first token.",
            LATENCY_BUCKETS_S,
        )
        self._decode_time = histogram(
            "request_decode_time_seconds", "From the first token to the last.", LATENCY_BUCKETS_S
        )

    def record(self, stats: RequestStats) -> None:
        for reason in stats.finish_reasons:
            self._success.inc(finished_reason=reason.value)
        if FinishReason.CANCELLED in stats.finish_reasons:
            self._orphaned.inc()
        self._prompt_tokens.inc(stats.num_prompt_tokens)
        self._generated.inc(stats.num_output_tokens)
        self._end_to_end.observe(stats.timing.total_s)
        self._queue_time.observe(stats.timing.queue_s)
        self._prefill_time.observe(stats.timing.prefill_s)
        self._decode_time.observe(stats.timing.decode_s)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
