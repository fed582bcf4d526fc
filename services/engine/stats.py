"""What the engine tells an observer: its load, each step, each finished request.

The seam for metrics: a service implements `StatsSink` and exports what it likes; the engine knows
no metrics library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from services.engine.request import FinishReason, RequestTiming

__all__ = ["EngineLoad", "RequestStats", "StatsSink", "StepStats"]


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What the engine is doing right now, and its counters since the start."""

    num_running: int = 0  # sequences: a request with n completions counts n
    num_waiting: int = 0
    max_running: int = 0  # 0: nobody says
    max_waiting: int = 0  # beyond it requests are refused
    num_places: int = 0  # new requests that would be let in now
    retry_after_s: float = 1.0  # when there is none: until there may be one
    num_blocks: int = 0
    num_free_blocks: int = 0  # nobody refers to them; they may still hold reusable prefixes
    prefix_queries: int = 0  # prompt tokens looked up in the prefix cache
    prefix_hits: int = 0  # and found
    num_preemptions: int = 0
    num_finished: int = 0  # requests that ended, for whatever reason
    num_prompt_tokens: int = 0  # of the requests that were begun
    num_cached_tokens: int = 0  # of these, those that were in the prefix cache
    num_output_tokens: int = 0


@dataclass(slots=True)
class StepStats:
    """One step, after it ran. Each generated token is in one of the two lists, except a fork's
    first one, which came together with that of its request, and those of beams.
    """

    load: EngineLoad
    num_batched_tokens: int = 0
    num_sequences: int = 0  # that they belong to
    step_s: float = 0.0
    first_token_s: list[float] = field(default_factory=list)  # since the request's arrival
    inter_token_s: list[float] = field(default_factory=list)  # since the completion's last token


@dataclass(frozen=True, slots=True)
class RequestStats:
    """A request that ended. One finish reason per completion."""

    finish_reasons: tuple[FinishReason, ...]
    num_prompt_tokens: int
    num_output_tokens: int
    num_cached_tokens: int
    timing: RequestTiming


class StatsSink(Protocol):
    """Called from the thread that steps the engine; must not block."""

    def record_step(self, stats: StepStats) -> None: ...

    def record_finished(self, stats: RequestStats) -> None: ...
