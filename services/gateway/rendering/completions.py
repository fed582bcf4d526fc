"""`/v1/completions`: the answer's JSON, whole and in chunks. Choice = prompt * n + completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway import sse
from services.gateway.rendering.common import Envelope, finish_reason, stop_reason, total_usage
from services.gateway.rendering.logprobs import CompletionLogprobs, prompt_logprobs

__all__ = ["CompletionChunks", "CompletionShape", "Echo", "completion_document"]


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt to repeat: its text and the text of its first token."""

    text: str
    first_token: str


@dataclass(frozen=True, slots=True)
class CompletionShape:
    """How the request wants its choices: `n` per prompt, what each one carries.

    `echoes` has one entry per prompt, or is empty.
    """

    n: int
    logprobs: bool
    prompt_logprobs: bool
    echoes: Sequence[Echo] = ()


def completion_document(
    envelope: Envelope, results: Sequence[pb.BatchResult], shape: CompletionShape
) -> dict[str, Any]:
    """The whole answer, choices in the order of the prompts."""
    document = envelope.fields()
    document["choices"] = [
        _whole_choice(prompt_index, result, completion, shape)
        for prompt_index, result in enumerate(results)
        for completion in result.completions
    ]
    document["usage"] = total_usage(result.usage for result in results)
    return document


def _whole_choice(
    prompt_index: int, result: pb.BatchResult, completion: pb.Completion, shape: CompletionShape
) -> dict[str, Any]:
    echo = shape.echoes[prompt_index] if shape.echoes else None
    logprobs = CompletionLogprobs()
    if shape.logprobs:
        if echo is not None:
            logprobs.extend_echo(result.prompt_logprobs, echo.first_token, echo.text)
            logprobs.offset = len(echo.text)
        logprobs.extend(completion.logprobs)
    choice = {
        "index": prompt_index * shape.n + completion.index,
        "text": (echo.text if echo is not None else "") + completion.text,
        "logprobs": logprobs.take() if shape.logprobs else None,
        "finish_reason": finish_reason(completion),
        "stop_reason": stop_reason(completion),
    }
    if shape.prompt_logprobs:
        choice["prompt_logprobs"] = prompt_logprobs(result.prompt_logprobs)
    return choice


class CompletionChunks:
    """The events of a streamed answer. The first one of a choice carries the echoed prompt."""

    def __init__(self, envelope: Envelope, shape: CompletionShape, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._shape = shape
        fields = orjson.dumps(envelope.fields())
        self._head = b"data: " + fields[:-1] + b',"choices":[{"index":'
        self._tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._logprobs: dict[int, CompletionLogprobs] = {}
        self._prompt_logprobs: dict[int, Sequence[common_pb2.PositionLogprobs]] = {}

    def render(self, prompt_index: int, response: pb.GenerateResponse) -> bytes:
        """The events of one message."""
        # Only the first message of a prompt has them, and its choices may begin later.
        self._prompt_logprobs.setdefault(prompt_index, response.prompt_logprobs)
        return b"".join(self._event(prompt_index, delta) for delta in response.choices)

    def render_usage(self, usage: dict[str, Any]) -> bytes:
        """The event that carries the usage and no choices."""
        return sse.event(self._envelope.fields() | {"choices": [], "usage": usage})

    def _event(self, prompt_index: int, delta: pb.CompletionDelta) -> bytes:
        index = prompt_index * self._shape.n + delta.index
        text = delta.text
        logprobs = self._logprobs.get(index)
        if logprobs is None:
            logprobs = self._logprobs[index] = CompletionLogprobs()
            text = self._begin(prompt_index, logprobs) + text
        reason = finish_reason(delta)
        if self._shape.logprobs:
            logprobs.extend(delta.logprobs)
        elif not text and reason is None:
            return b""  # the new tokens' text is still undecided
        ending = b"null"
        if reason is not None:
            ending = b'"' + reason.encode() + b'","stop_reason":' + orjson.dumps(stop_reason(delta))
        return b'%b%d,"text":%b,"logprobs":%b,"finish_reason":%b%b' % (
            self._head,
            index,
            orjson.dumps(text),
            orjson.dumps(logprobs.take()) if self._shape.logprobs else b"null",
            ending,
            self._tail,
        )

    def _begin(self, prompt_index: int, logprobs: CompletionLogprobs) -> str:
        if not self._shape.echoes:
            return ""
        echo = self._shape.echoes[prompt_index]
        if self._shape.logprobs:
            logprobs.extend_echo(self._prompt_logprobs[prompt_index], echo.first_token, echo.text)
            logprobs.offset = len(echo.text)
        return echo.text
