"""Scores a text: the log-probability of each of its tokens under the model.

A score is a request that generates nothing and asks for its prompt's log-probabilities. Knows
nothing of gRPC or protobuf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.engine.errors import InvalidRequestError
from services.engine.request import PositionLogprobs, SamplingParams
from services.generation.collect import CollectedRequest

__all__ = ["ScoredText", "check_scorable", "score_params", "scored_text"]


@dataclass(frozen=True, slots=True)
class ScoredText:
    """One entry per target token; totals over those that something precedes."""

    positions: Sequence[PositionLogprobs]
    num_scored: int
    total_logprob: float  # natural logarithm
    perplexity: float


def score_params(top_logprobs: int | None) -> SamplingParams:
    """Parameters of the request that scores. Raises `InvalidRequestError`."""
    try:
        return SamplingParams(max_tokens=0, temperature=0.0, prompt_logprobs=top_logprobs or 0)
    except InvalidRequestError as error:
        # The caller's field has another name than the engine's.
        message = str(error).removeprefix(f"{error.field}: ")
        raise InvalidRequestError("top_logprobs", message) from error


def check_scorable(num_context: int, num_target: int) -> None:
    """Raises `InvalidRequestError` when nothing could be scored."""
    if num_context == 0 and num_target < 2:
        raise InvalidRequestError(
            "target", "expected at least two tokens, or a context: nothing predicts a first token"
        )


def scored_text(collected: CollectedRequest, num_target: int) -> ScoredText:
    """The target's part of a finished scoring request."""
    positions = collected.prompt_logprobs[-num_target:]
    assert len(positions) == num_target
    scored = [position.chosen.logprob for position in positions if position.chosen is not None]
    total = math.fsum(scored)
    return ScoredText(positions, len(scored), total, _perplexity(total, len(scored)))


def _perplexity(total_logprob: float, num_tokens: int) -> float:
    try:
        return math.exp(-total_logprob / num_tokens)
    except OverflowError:  # a token the model holds impossible
        return math.inf
