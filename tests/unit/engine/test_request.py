"""Sampling parameters refuse what is out of range by name; outputs join to the whole."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.engine.errors import InvalidRequestError
from services.engine.request import (
    MAX_N,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    Request,
    RequestOutput,
    SamplingParams,
    Sequence,
)

BAD: list[tuple[str, Any]] = [
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("min_tokens", -1),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("top_p", 0.0),
    ("top_p", 1.01),
    ("top_p", math.nan),
    ("top_k", -1),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("typical_p", 0.0),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", math.nan),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("seed", -1),
    ("seed", 2**64),
    ("n", 0),
    ("n", MAX_N + 1),
    ("n", 1000),
    ("best_of", 0),
    ("best_of", MAX_N + 1),
    ("stop", ("x",) * (MAX_STOP_STRINGS + 1)),
    ("stop", ("",)),
    ("stop", ("x" * (MAX_STOP_LENGTH + 1),)),
    ("stop_token_ids", tuple(range(65))),
    ("logprobs", 21),
    ("logprobs", -1),
    ("prompt_logprobs", 21),
    ("allowed_token_ids", tuple(range(4097))),
    ("banned_token_ids", tuple(range(4097))),
    ("beam_width", 1),
    ("beam_width", -2),
    ("beam_width", MAX_N + 1),
    ("length_penalty", math.nan),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("bias", [-101.0, 101.0, math.nan])
def test_logit_bias_out_of_range_is_refused_with_its_token(bias: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"logit_bias\[5\]"):
        SamplingParams(logit_bias={5: bias})


def test_values_at_the_edges_are_accepted() -> None:
    SamplingParams(temperature=0.0, top_p=1.0, top_k=0, min_p=1.0, seed=2**64 - 1, n=MAX_N)
    SamplingParams(max_tokens=0, prompt_logprobs=0)
    SamplingParams(max_tokens=5, min_tokens=5)


def test_counts_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="min_tokens"):
        SamplingParams(max_tokens=5, min_tokens=6)
    with pytest.raises(InvalidRequestError, match="best_of"):
        SamplingParams(n=3, best_of=2)
    with pytest.raises(InvalidRequestError, match="n: "):
        SamplingParams(n=5, beam_width=4)


def test_beam_search_refuses_a_temperature() -> None:
    with pytest.raises(InvalidRequestError, match="temperature"):
        SamplingParams(beam_width=4, temperature=0.7)


def test_sequences_are_ordered_by_priority_then_arrival_then_age() -> None:
    def sequence(seq_id: int, priority: int, arrival_s: float) -> Sequence:
        request = Request("r", [1], SamplingParams(), priority=priority, arrival_s=arrival_s)
        return Sequence(seq_id, request, [1])

    in_order = [
        sequence(9, -1, 5.0),
        sequence(8, 0, 1.0),
        sequence(3, 0, 2.0),
        sequence(4, 0, 2.0),
        sequence(1, 1, 0.0),
    ]
    jumbled = in_order[::-1]
    assert sorted(jumbled, key=lambda seq: seq.order) == in_order


def test_outputs_of_a_stream_join_to_the_whole() -> None:
    position = PositionLogprobs(None)
    whole = RequestOutput(
        "r", [CompletionOutput(0, "a", [1], [position])], prompt_logprobs=[position]
    )
    whole.extend(RequestOutput("r", [CompletionOutput(1, "x", [7])], num_output_tokens=2))
    whole.extend(
        RequestOutput(
            "r",
            [
                CompletionOutput(1, "y", [8], finish_reason=FinishReason.LENGTH),
                CompletionOutput(
                    0,
                    "b",
                    [2],
                    [position],
                    finish_reason=FinishReason.STOP,
                    stop_reason=2,
                    cumulative_logprob=-1.5,
                ),
            ],
            finished=True,
            num_output_tokens=4,
        )
    )
    first, second = whole.outputs
    assert (first.text, first.token_ids, first.stop_reason) == ("ab", [1, 2], 2)
    assert first.logprobs == [position, position]
    assert first.cumulative_logprob == -1.5
    assert (second.text, second.token_ids) == ("xy", [7, 8])
    assert second.finish_reason is FinishReason.LENGTH
    assert second.logprobs is None
    assert whole.finished
    assert whole.num_output_tokens == 4
    assert whole.prompt_logprobs == [position]
