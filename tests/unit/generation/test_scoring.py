"""Scores from prompt log-probabilities."""

from __future__ import annotations

import math

import pytest

from services.engine.errors import InvalidRequestError
from services.engine.request import PositionLogprobs, TokenLogprob
from services.generation.collect import CollectedRequest
from services.generation.scoring import check_scorable, score_params, scored_text


def _collected(*logprobs: float | None) -> CollectedRequest:
    return CollectedRequest(
        prompt_logprobs=[
            PositionLogprobs(None if value is None else TokenLogprob(1, value, 1))
            for value in logprobs
        ]
    )


def test_scored_text_takes_the_target_only() -> None:
    scored = scored_text(_collected(None, -9.0, -1.0, -3.0), num_target=2)
    assert (scored.num_scored, scored.total_logprob) == (2, -4.0)
    assert scored.perplexity == pytest.approx(math.exp(2.0))


def test_first_token_without_context_is_not_scored() -> None:
    scored = scored_text(_collected(None, -1.0, -3.0), num_target=3)
    assert len(scored.positions) == 3
    assert scored.num_scored == 2


def test_perplexity_of_the_impossible_is_infinite() -> None:
    assert scored_text(_collected(None, -1e6), 2).perplexity == math.inf


@pytest.mark.parametrize(("context", "target", "fine"), [(0, 1, False), (0, 2, True), (1, 1, True)])
def test_something_must_precede_the_target(context: int, target: int, fine: bool) -> None:
    if fine:
        check_scorable(context, target)
        return
    with pytest.raises(InvalidRequestError) as caught:
        check_scorable(context, target)
    assert caught.value.field == "target"


def test_too_many_candidates_are_refused_under_the_callers_name() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        score_params(1000)
    assert caught.value.field == "top_logprobs"
    assert "prompt_logprobs" not in str(caught.value)
