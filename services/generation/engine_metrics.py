"""Exports what the engine tells about itself, under vLLM's names where the thing is the same.

Called from the engine's thread after every step: it records and returns. Knows no exporter.
"""

from __future__ import annotations

from services.engine.stats import EngineLoad, RequestStats, StepStats
from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    TOKEN_LATENCY_BUCKETS_S,
    MetricsRegistry,
)

__all__ = ["EngineMetrics"]


class EngineMetrics:
    """A `services.engine.stats.StatsSink` over a metrics registry."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._last = EngineLoad()
        self._running = registry.gauge("num_requests_running", "Sequences in the running batch.")
        self._waiting = registry.gauge("num_requests_waiting", "Requests in the queue.")
        self._usage = registry.gauge(
            "kv_cache_usage_perc", "Share of the KV blocks in use, from 0 to 1."
        )
        self._queries = registry.counter(
            "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache."
        )
        self._hits = registry.counter(
            "prefix_cache_hits_total", "Prompt tokens found in the prefix cache."
        )
        self._preemptions = registry.counter(
            "num_preemptions_total", "Sequences put back into the queue for want of blocks."
        )
        self._prompt_tokens = registry.counter(
            "prompt_tokens_total", "Prompt tokens of the requests that ended."
        )
        self._generated = registry.counter("generation_tokens_total", "Generated tokens.")
        self._success = registry.counter(
            "request_success_total", "Completions that ended, by why.", ("finished_reason",)
        )
        self._first_token = registry.histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", LATENCY_BUCKETS_S
        )
        self._inter_token = registry.histogram(
            "inter_token_latency_seconds", "From one token to the next.", TOKEN_LATENCY_BUCKETS_S
        )
        self._end_to_end = registry.histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", LATENCY_BUCKETS_S
        )
        self._queue_time = registry.histogram(
            "request_queue_time_seconds", "From arrival to the first step.", LATENCY_BUCKETS_S
        )

    def record_step(self, stats: StepStats) -> None:
        """One step's load, tokens and latencies."""
        self._record_load(stats.load)
        self._generated.inc(stats.num_generated_tokens)
        for seconds in stats.first_token_s:
            self._first_token.observe(seconds)
        for seconds in stats.inter_token_s:
            self._inter_token.observe(seconds)

    def record_finished(self, stats: RequestStats) -> None:
        """One request that ended, for whatever reason."""
        for reason in stats.finish_reasons:
            self._success.inc(finished_reason=reason.value)
        self._prompt_tokens.inc(stats.num_prompt_tokens)
        self._end_to_end.observe(stats.timing.total_s)
        self._queue_time.observe(stats.timing.queue_s)

    def _record_load(self, load: EngineLoad) -> None:
        last, self._last = self._last, load
        self._running.set(load.num_running)
        self._waiting.set(load.num_waiting)
        used = load.num_blocks - load.num_free_blocks
        self._usage.set(used / load.num_blocks if load.num_blocks else 0.0)
        # The engine counts since its start; a metrics counter wants what is new.
        self._queries.inc(load.prefix_queries - last.prefix_queries)
        self._hits.inc(load.prefix_hits - last.prefix_hits)
        self._preemptions.inc(load.num_preemptions - last.num_preemptions)
