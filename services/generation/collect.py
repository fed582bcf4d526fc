"""Gathers the pieces of a request's stream into its whole result. Knows nothing of protobuf."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field

from services.engine.request import (
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    Request,
    RequestOutput,
    RequestTiming,
)
from services.generation.backend import Backend

__all__ = ["CollectedRequest", "collect"]


@dataclass(slots=True)
class CollectedRequest:
    """A finished request: whole completions by index, and what it cost."""

    completions: dict[int, CompletionOutput] = field(default_factory=dict)
    prompt_logprobs: list[PositionLogprobs] = field(default_factory=list)
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    timing: RequestTiming = field(default_factory=RequestTiming)
    error: Exception | None = None

    @property
    def is_partial_at_deadline(self) -> bool:
        """Whether time ran out after some tokens."""
        reasons = {completion.finish_reason for completion in self.completions.values()}
        return FinishReason.DEADLINE in reasons and self.num_output_tokens > 0

    def add(self, output: RequestOutput) -> None:
        """Takes in one output of the stream."""
        for delta in output.outputs:
            whole = self.completions.setdefault(delta.index, CompletionOutput(delta.index))
            whole.extend(delta)
        if output.prompt_logprobs is not None:
            self.prompt_logprobs.extend(output.prompt_logprobs)
        self.num_prompt_tokens = output.num_prompt_tokens
        self.num_output_tokens = output.num_output_tokens
        self.num_cached_tokens = output.num_cached_tokens
        self.timing = output.timing
        self.error = output.error


async def collect(backend: Backend, request: Request) -> CollectedRequest:
    """Runs a request to its end. Cancelling this aborts the request."""
    collected = CollectedRequest()
    async with aclosing(backend.generate(request)) as outputs:
        async for output in outputs:
            collected.add(output)
    return collected
