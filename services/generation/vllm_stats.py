"""What vLLM tells about itself, as the engine's statistics. vLLM calls this after each step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.engine.request import FinishReason, RequestTiming
from services.engine.stats import EngineLoad, RequestStats, StatsSink, StepStats

__all__ = ["VLLMStats"]

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "abort": FinishReason.CANCELLED,
    "error": FinishReason.ERROR,
}


class VLLMStats:
    """vLLM's `StatLoggerBase`, as far as it is called, passed on to a `StatsSink`.

    It is its own factory: vLLM calls it with its config where it expects a class.
    """

    def __init__(self, sink: StatsSink) -> None:
        self._sink = sink
        self._num_blocks = 0
        self.load = EngineLoad()

    def __call__(self, vllm_config: Any, _engine_index: int = 0) -> VLLMStats:
        self._num_blocks = vllm_config.cache_config.num_gpu_blocks or 0
        self.load = EngineLoad(num_blocks=self._num_blocks)
        return self

    def log_engine_initialized(self) -> None:
        """Nothing is said at start, ..."""

    def log(self) -> None:
        """... nor at intervals."""

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,  # noqa: ARG002 - vLLM passes both by name
        engine_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """One step. Either part may be missing."""
        finished = [] if iteration_stats is None else iteration_stats.finished_requests
        self._update_load(scheduler_stats, iteration_stats)
        step = StepStats(self.load)
        if iteration_stats is not None:
            tokens = iteration_stats.num_prompt_tokens + iteration_stats.num_generation_tokens
            step.num_batched_tokens, step.num_sequences = tokens, self.load.num_running
            step.first_token_s = list(iteration_stats.time_to_first_tokens_iter)
            step.inter_token_s = list(iteration_stats.inter_token_latencies_iter)
        self._sink.record_step(step)
        for request in finished:
            self._sink.record_finished(_request_stats(request))

    def _update_load(self, scheduler: Any, iteration: Any) -> None:
        load = self.load
        if scheduler is not None:
            used = round(scheduler.kv_cache_usage * self._num_blocks)
            prefixes = scheduler.prefix_cache_stats
            load = replace(
                load,
                num_running=scheduler.num_running_reqs,
                num_waiting=scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs,
                num_free_blocks=self._num_blocks - used,
                prefix_queries=load.prefix_queries + prefixes.queries,
                prefix_hits=load.prefix_hits + prefixes.hits,
                num_cached_tokens=load.num_cached_tokens + prefixes.hits,
            )
        if iteration is not None:
            load = replace(
                load,
                num_preemptions=load.num_preemptions + iteration.num_preempted_reqs,
                num_finished=load.num_finished + len(iteration.finished_requests),
                num_prompt_tokens=load.num_prompt_tokens + iteration.num_prompt_tokens,
                num_output_tokens=load.num_output_tokens + iteration.num_generation_tokens,
            )
        self.load = load


def _request_stats(request: Any) -> RequestStats:
    return RequestStats(
        finish_reasons=(_FINISH_REASONS[str(request.finish_reason)],),
        num_prompt_tokens=request.num_prompt_tokens,
        num_output_tokens=request.num_generation_tokens,
        num_cached_tokens=request.num_cached_tokens,
        timing=RequestTiming(
            queue_s=request.queued_time,
            prefill_s=request.prefill_time,
            decode_s=request.decode_time,
            total_s=request.e2e_latency,
        ),
    )
