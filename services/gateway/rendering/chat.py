"""`/v1/chat/completions`: the answer's JSON, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from orrery.v1 import generation_pb2 as pb
from services.gateway import sse
from services.gateway.rendering.common import Envelope, finish_reason, stop_reason, total_usage
from services.gateway.rendering.logprobs import chat_logprobs, prompt_logprobs

__all__ = ["ChatChunks", "chat_document"]


def chat_document(
    envelope: Envelope, results: Sequence[pb.BatchResult], *, logprobs: bool
) -> dict[str, Any]:
    """The whole answer. A conversation is one prompt, so there is one result."""
    (result,) = results
    document = envelope.fields()
    document["choices"] = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": chat_logprobs(choice.logprobs) if logprobs else None,
            "finish_reason": finish_reason(choice),
            "stop_reason": stop_reason(choice),
        }
        for choice in result.completions
    ]
    document["usage"] = total_usage([result.usage])
    if result.prompt_logprobs:
        document["prompt_logprobs"] = prompt_logprobs(result.prompt_logprobs)
    return document


class ChatChunks:
    """The events of a streamed answer: the role, the pieces of text, the reason for ending.

    What every chunk repeats is serialised once: a token costs one short string more.
    """

    def __init__(self, envelope: Envelope, *, logprobs: bool, include_usage: bool) -> None:
        self._envelope = envelope
        self._logprobs = logprobs
        fields = orjson.dumps(envelope.fields())
        self._head = b"data: " + fields[:-1] + b',"choices":[{"index":'
        self._tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._begun: set[int] = set()

    def render(self, prompt_index: int, response: pb.GenerateResponse) -> bytes:
        """The events of one message."""
        assert prompt_index == 0
        return b"".join(self._events(delta) for delta in response.choices)

    def render_usage(self, usage: dict[str, Any]) -> bytes:
        """The event that carries the usage and no choices."""
        return sse.event(self._envelope.fields() | {"choices": [], "usage": usage})

    def _events(self, delta: pb.CompletionDelta) -> bytes:
        events = b""
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            role = b'{"role":"assistant","content":"","refusal":null}'
            events = self._event(delta.index, role, b"null", b"null")
        if delta.text or (self._logprobs and delta.logprobs):
            content = b'{"content":' + orjson.dumps(delta.text) + b"}"
            logprobs = orjson.dumps(chat_logprobs(delta.logprobs)) if self._logprobs else b"null"
            events += self._event(delta.index, content, logprobs, b"null")
        reason = finish_reason(delta)
        if reason is not None:
            ending = b'"' + reason.encode() + b'","stop_reason":' + orjson.dumps(stop_reason(delta))
            events += self._event(delta.index, b"{}", b"null", ending)
        return events

    def _event(self, index: int, delta: bytes, logprobs: bytes, ending: bytes) -> bytes:
        return b'%b%d,"delta":%b,"logprobs":%b,"finish_reason":%b%b' % (
            self._head,
            index,
            delta,
            logprobs,
            ending,
            self._tail,
        )
