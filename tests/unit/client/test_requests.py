"""Arguments to protobuf: what fits, and how what does not is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orrery
from orrery.requests import generation as requests
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb

USER = {"role": "user", "content": "hi"}


def test_prompt_takes_its_three_forms() -> None:
    assert requests.build_prompt("hi") == common_pb2.Prompt(text="hi")
    assert list(requests.build_prompt((1, 2)).token_ids.ids) == [1, 2]
    chat = requests.build_prompt([USER, {"role": "assistant", "content": "", "name": "bot"}]).chat
    assert [(m.role, m.content, m.name) for m in chat.messages] == [
        (common_pb2.ROLE_USER, "hi", ""),
        (common_pb2.ROLE_ASSISTANT, "", "bot"),
    ]
    assert not chat.HasField("add_generation_prompt")


def test_chat_can_leave_the_assistants_turn_closed() -> None:
    chat = requests.build_prompt(orrery.Chat([USER], add_generation_prompt=False)).chat
    assert chat.add_generation_prompt is False


def test_empty_list_is_token_ids_for_the_server_to_refuse() -> None:
    assert requests.build_prompt([]).WhichOneof("kind") == "token_ids"


@pytest.mark.parametrize(
    "prompt", [b"bytes", USER, 5, None, [1.5], ["text"], [USER, 3], [{**USER, "content": 3}]]
)
def test_prompt_of_a_wrong_type_is_a_type_error(prompt: Any) -> None:
    with pytest.raises(TypeError, match="prompt"):
        requests.build_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        ("lone surrogate \ud800", "prompt"),
        ([-1], "prompt"),
        ([1 << 32], "prompt"),
        ([{"role": "wizard", "content": "x"}], "prompt[0].role"),
        ([USER, {"role": "user"}], "prompt[1]"),
        ([{**USER, "colour": "red"}], "prompt[0]"),
    ],
)
def test_prompt_that_cannot_be_sent_is_refused_by_name(prompt: Any, field: str) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        requests.build_prompt(prompt)
    assert caught.value.field == field


def test_sampling_that_is_none_stays_unset() -> None:
    options: dict[str, Any] = dict.fromkeys(requests.SamplingOptions.__annotations__)
    assert requests.build_sampling(options) == pb.SamplingParams()


def test_sampling_zero_differs_from_unset() -> None:
    message = requests.build_sampling({"temperature": 0, "top_k": 0, "n": 0})
    assert message.HasField("temperature")
    assert message.HasField("top_k")
    assert message.HasField("n")
    assert not message.HasField("top_p")


def test_sampling_takes_every_field() -> None:
    given_options: dict[str, Any] = {}
    for field in pb.SamplingParams.DESCRIPTOR.fields:
        if field.name == "logit_bias":
            given_options[field.name] = {3: 0.5}
        elif field.is_repeated:
            given_options[field.name] = ["a"] if field.type == field.TYPE_STRING else [3]
        else:
            given_options[field.name] = field.type == field.TYPE_BOOL or 1
    message = requests.build_sampling(given_options)
    assert {field.name for field, _ in message.ListFields()} == set(given_options)


def test_one_stop_string_is_not_taken_for_its_letters() -> None:
    assert list(requests.build_sampling({"stop": "END"}).stop) == ["END"]


def test_unknown_sampling_parameter_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="'temprature'"):
        orrery.Client("127.0.0.1:1").generate("x", temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("max_tokens", 2.5),
        ("max_tokens", True),
        ("stop", 5),
        ("stop", ["a", 3]),
        ("logit_bias", [1, 2]),
        ("stop_token_ids", 3),
    ],
)
def test_sampling_value_of_a_wrong_type_is_a_type_error_that_names_it(
    name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=name):
        requests.build_sampling({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", -1), ("seed", 1 << 64), ("logit_bias", {-1: 1.0}), ("stop", ["\udfff"])],
)
def test_sampling_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        requests.build_sampling({name: value})
    assert caught.value.field == name


def test_batch_of_one_bare_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="several"):
        requests.build_batch("text", {}, priority=0)


def test_error_in_a_batch_names_the_prompt() -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        requests.build_batch(["fine", [-5]], {}, priority=0)
    assert caught.value.field == "prompts[1]"


def test_priority_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        requests.build_generate("x", {}, priority=1 << 40)
    assert caught.value.field == "priority"


@settings(deadline=None)
@given(st.lists(st.integers()))
def test_token_ids_are_sent_as_they_are_or_refused_by_name(token_ids: list[int]) -> None:
    if all(0 <= token_id < 1 << 32 for token_id in token_ids):
        assert list(requests.build_prompt(token_ids).token_ids.ids) == token_ids
    else:
        with pytest.raises(orrery.InvalidRequestError) as caught:
            requests.build_prompt(token_ids)
        assert caught.value.field == "prompt"


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=0x10FFFF)))
def test_text_is_sent_as_it_is_or_refused_by_name(text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        with pytest.raises(orrery.InvalidRequestError) as caught:
            requests.build_prompt(text)
        assert caught.value.field == "prompt"
    else:
        assert requests.build_prompt(text).text == text
