"""Protobuf messages become OpenAI's JSON: the corners that the toy model does not reach."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway.rendering.chat import ChatChunks
from services.gateway.rendering.common import Envelope, finish_reason, total_usage
from services.gateway.rendering.logprobs import CompletionLogprobs, chat_logprobs
from services.runtime.errors import Cancelled, DeadlineExceeded, Internal

ENVELOPE = Envelope('id"with"quotes', "chat.completion.chunk", 1, "modèle", "fp_0")


def position(token: str, data: bytes | None = None, logprob: float = -0.5) -> Any:
    chosen = common_pb2.TokenLogprob(
        token_id=1,
        token=token,
        token_bytes=token.encode() if data is None else data,
        logprob=logprob,
        rank=1,
    )
    return common_pb2.PositionLogprobs(chosen=chosen, top=[chosen])


def test_character_split_over_tokens_keeps_bytes_and_offsets() -> None:
    whole = "é".encode()
    parts = [position("\ufffd", whole[:1]), position("\ufffd", whole[1:]), position("!")]
    logprobs = CompletionLogprobs()
    logprobs.extend(parts)
    taken = logprobs.take()
    assert taken["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "!"]
    assert taken["text_offset"] == [0, 0, 1]
    assert logprobs.take()["tokens"] == []
    content = chat_logprobs(parts)["content"]
    assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == "é!"


def test_space_that_the_tokenizer_adds_has_no_width_in_the_echo() -> None:
    prompt = [common_pb2.PositionLogprobs(), position(" Once"), position(" upon")]
    logprobs = CompletionLogprobs()
    logprobs.extend_echo(prompt, "<s>", "Once upon")
    assert logprobs.take()["text_offset"] == [0, 0, 4]
    assert logprobs.offset == len("Once upon")


def test_first_token_that_is_part_of_the_prompt_has_its_width() -> None:
    prompt = [common_pb2.PositionLogprobs(), position(" upon")]
    logprobs = CompletionLogprobs()
    logprobs.extend_echo(prompt, "Once", "Once upon")
    taken = logprobs.take()
    assert taken["tokens"] == ["Once", " upon"]
    assert taken["text_offset"] == [0, 4]


def test_zero_probability_is_a_number_in_json() -> None:
    entry = chat_logprobs([position("x", logprob=-math.inf)])["content"][0]
    assert entry["logprob"] == -9999.0
    logprobs = CompletionLogprobs()
    logprobs.extend([position("x", logprob=-math.inf)])
    assert logprobs.take()["token_logprobs"] == [-9999.0]


@pytest.mark.parametrize(
    "text", ["plain", 'say "hi"', "line\nbreak", "tab\t", "\u2028", "日本語 🏮", "\x00\x1f", "</s>"]
)
def test_chunk_of_any_text_is_one_line_of_json(text: str) -> None:
    chunks = ChatChunks(ENVELOPE, logprobs=False, include_usage=False)
    response = pb.GenerateResponse(choices=[pb.CompletionDelta(index=0, text=text)])
    events = chunks.render(0, response).decode().removesuffix("\n\n").split("\n\n")
    assert len(events) == 2
    data = json.loads(events[1].removeprefix("data: "))
    assert "\n" not in events[1]
    assert data["choices"][0]["delta"]["content"] == text
    assert data["id"] == ENVELOPE.id
    assert data["model"] == ENVELOPE.model


def test_message_without_text_sends_nothing() -> None:
    chunks = ChatChunks(ENVELOPE, logprobs=False, include_usage=False)
    undecided = pb.GenerateResponse(choices=[pb.CompletionDelta(index=0, token_ids=[7])])
    assert chunks.render(0, undecided).count(b"data: ") == 1  # the role
    assert chunks.render(0, undecided) == b""


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (pb.FINISH_REASON_DEADLINE, DeadlineExceeded),
        (pb.FINISH_REASON_CANCELLED, Cancelled),
        (pb.FINISH_REASON_ERROR, Internal),
    ],
)
def test_ending_that_openai_has_no_word_for_is_an_error(reason: Any, error: Any) -> None:
    with pytest.raises(error):
        finish_reason(pb.Completion(finish_reason=reason))


def test_every_ending_is_known() -> None:
    for reason in pb.FinishReason.values():
        try:
            word = finish_reason(pb.Completion(finish_reason=reason))
        except (DeadlineExceeded, Cancelled, Internal):
            continue
        assert word in (None, "stop", "length")


def test_usage_is_the_sum_over_prompts() -> None:
    usage = common_pb2.Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=4)
    assert total_usage([usage, usage]) == {
        "prompt_tokens": 10,
        "completion_tokens": 14,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
