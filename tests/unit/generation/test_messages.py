"""Protobuf to the domain and back: no field is lost."""

from __future__ import annotations

import dataclasses

import pytest

from orrery.v1 import common_pb2, generation_pb2
from services.engine.errors import InvalidRequestError
from services.engine.request import (
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    SamplingParams,
    TokenLogprob,
)
from services.generation import messages
from services.generation.prompts import ChatPrompt, TextPrompt, TokenPrompt


def test_contract_and_engine_name_the_same_sampling_parameters() -> None:
    contract = {field.name for field in generation_pb2.SamplingParams.DESCRIPTOR.fields}
    engine = {field.name for field in dataclasses.fields(SamplingParams)}
    assert contract == engine


def test_unset_parameters_take_the_engines_defaults() -> None:
    assert messages.sampling_params(generation_pb2.SamplingParams()) == SamplingParams()


def test_every_parameter_arrives() -> None:
    params = SamplingParams(
        max_tokens=9,
        min_tokens=1,
        temperature=0.5,
        top_p=0.5,
        top_k=4,
        min_p=0.25,
        typical_p=0.5,
        repetition_penalty=1.5,
        presence_penalty=-0.5,
        frequency_penalty=0.5,
        logit_bias={3: -2.0},
        allowed_token_ids=(1, 2),
        banned_token_ids=(4,),
        seed=2**64 - 1,
        n=2,
        best_of=3,
        stop=("a", "b"),
        stop_token_ids=(5,),
        include_stop_in_output=True,
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=2,
        skip_special_tokens=False,
        length_penalty=2.0,
    )
    message = generation_pb2.SamplingParams(**dataclasses.asdict(params))
    assert messages.sampling_params(message) == params


def test_explicit_zero_is_not_taken_for_unset() -> None:
    assert messages.sampling_params(generation_pb2.SamplingParams(temperature=0)).greedy
    with pytest.raises(InvalidRequestError) as caught:
        messages.sampling_params(generation_pb2.SamplingParams(max_tokens=0))
    assert caught.value.field == "max_tokens"


def test_prompt_of_each_kind() -> None:
    text = common_pb2.Prompt(text="hi")
    tokens = common_pb2.Prompt(token_ids=common_pb2.TokenIds(ids=[1, 2]))
    assert messages.prompt_input(text) == TextPrompt("hi")
    assert messages.prompt_input(tokens) == TokenPrompt([1, 2])


def test_chat_prompt_keeps_roles_names_and_the_opened_turn() -> None:
    chat = common_pb2.ChatMessages(
        messages=[
            common_pb2.ChatMessage(role=common_pb2.ROLE_SYSTEM, content="be brief"),
            common_pb2.ChatMessage(role=common_pb2.ROLE_USER, content="hi", name="Ada"),
        ]
    )
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi", "name": "Ada"},
    ]
    assert messages.prompt_input(common_pb2.Prompt(chat=chat)) == ChatPrompt(turns, True)
    chat.add_generation_prompt = False
    assert messages.prompt_input(common_pb2.Prompt(chat=chat)) == ChatPrompt(turns, False)


def test_prompt_without_kind_or_role_is_refused_by_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        messages.prompt_input(common_pb2.Prompt(), "context")
    assert caught.value.field == "context"
    nobody = common_pb2.ChatMessages(messages=[common_pb2.ChatMessage(content="hi")])
    with pytest.raises(InvalidRequestError) as caught:
        messages.prompt_input(common_pb2.Prompt(chat=nobody))
    assert caught.value.field == "prompt.messages[0].role"


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_finish_reason_has_its_enum_value(reason: FinishReason) -> None:
    delta = messages.completion_delta(CompletionOutput(0, finish_reason=reason))
    name = generation_pb2.FinishReason.Name(delta.finish_reason)
    assert name == f"FINISH_REASON_{reason.name}"


def test_delta_tells_a_stop_string_from_a_stop_token() -> None:
    by_string = messages.completion_delta(CompletionOutput(0, stop_reason="end"))
    by_token = messages.completion_delta(CompletionOutput(0, stop_reason=0))
    neither = messages.completion_delta(CompletionOutput(0))
    assert by_string.WhichOneof("stop_reason") == "stop_string"
    assert by_token.WhichOneof("stop_reason") == "stop_token_id"
    assert neither.WhichOneof("stop_reason") is None
    assert not neither.HasField("cumulative_logprob")


def test_logprobs_keep_bytes_ranks_and_the_missing_first() -> None:
    token = TokenLogprob(7, -0.5, 3, "\ufffd", b"\xe2")
    positions = [PositionLogprobs(None), PositionLogprobs(token, (token,))]
    first, second = messages.position_logprobs(positions)
    assert not first.HasField("chosen")
    assert (second.chosen.token_id, second.chosen.rank) == (7, 3)
    assert second.top[0].token_bytes == b"\xe2"
