"""What both endpoints' answers share: the envelope, the usage, the reasons for ending."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.runtime.errors import Cancelled, DeadlineExceeded, Internal, OrreryError

__all__ = ["ChunkRenderer", "Ending", "Envelope", "finish_reason", "stop_reason", "total_usage"]


class Ending(Protocol):
    """What a streamed delta and a whole completion have in common at their end."""

    finish_reason: pb.FinishReason
    stop_string: str
    stop_token_id: int


class ChunkRenderer(Protocol):
    """Turns the messages of a stream into the bytes of its events."""

    def render(self, prompt_index: int, response: pb.GenerateResponse) -> bytes:
        """The events of one message; may be empty."""

    def render_usage(self, usage: dict[str, Any]) -> bytes:
        """The event that carries the usage and no choices."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields around the choices, the same in every chunk of an answer."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str

    def fields(self) -> dict[str, Any]:
        """As JSON fields, in OpenAI's order."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def total_usage(usages: Iterable[common_pb2.Usage]) -> dict[str, Any]:
    """The sum over the prompts of a request."""
    prompt = completion = cached = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        cached += usage.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


_ENDS: dict[int, str] = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
}
# OpenAI has no words for these: the choice did not end, the request failed.
_FAILURES: dict[int, type[OrreryError]] = {
    pb.FINISH_REASON_CANCELLED: Cancelled,
    pb.FINISH_REASON_DEADLINE: DeadlineExceeded,
    pb.FINISH_REASON_ERROR: Internal,
}


def finish_reason(choice: Ending) -> str | None:
    """OpenAI's word, or None while the choice goes on. Raises when it ended otherwise."""
    if choice.finish_reason == pb.FINISH_REASON_UNSPECIFIED:
        return None
    failure = _FAILURES.get(choice.finish_reason)
    if failure is not None:
        raise failure("the generation ended before it was complete")
    return _ENDS[choice.finish_reason]


def stop_reason(choice: pb.CompletionDelta | pb.Completion) -> str | int | None:
    """The stop string or the stop token's id, when one ended the choice."""
    which = choice.WhichOneof("stop_reason")
    return None if which is None else getattr(choice, which)
