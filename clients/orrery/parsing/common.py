"""What the answers of every service are read with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from orrery.errors import ERRORS_BY_REASON, InternalError, OrreryError
from orrery.results.common import StageTiming, Timing, Usage
from orrery.v1 import common_pb2

__all__ = [
    "item_error",
    "name_of",
    "optional",
    "same_fields",
    "timeline_of",
    "timing_of",
    "usage_of",
]

ResultT = TypeVar("ResultT")


class _ItemError(Protocol):
    """Each service has its own message for it."""

    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def field(self) -> str: ...


def usage_of(message: common_pb2.Usage) -> Usage:
    return Usage(message.prompt_tokens, message.completion_tokens, message.cached_tokens)


def timing_of(message: common_pb2.Timing) -> Timing:
    return Timing(
        queue_ns=message.queue_ns,
        prefill_ns=message.prefill_ns,
        decode_ns=message.decode_ns,
        retrieval_ns=message.retrieval_ns,
        rerank_ns=message.rerank_ns,
        total_ns=message.total_ns,
    )


def same_fields(cls: type[ResultT], message: Message, **others: Any) -> ResultT:
    """An instance of a result class whose fields are named as the message's, but for `others`."""
    values = {
        field.name: others[field.name] if field.name in others else getattr(message, field.name)
        for field in fields(cls)  # type: ignore[arg-type]
    }
    return cls(**values)


def timeline_of(messages: Iterable[common_pb2.StageTiming]) -> tuple[StageTiming, ...]:
    """The stages of a call."""
    return tuple(same_fields(StageTiming, message) for message in messages)


def item_error(error: _ItemError, request_id: str) -> OrreryError:
    """The error of one item of many, as a call of its own would have raised it."""
    error_class = ERRORS_BY_REASON.get(error.reason, InternalError)
    return error_class(
        error.message,
        reason=error.reason or None,
        field=error.field or None,
        request_id=request_id,
    )


def name_of(choices: Mapping[str, int], value: int) -> str:
    """The name of an enum's value; `unknown` for one that is newer than this client."""
    return next((name for name, number in choices.items() if number == value), "unknown")


def optional(message: Message, name: str) -> Any:
    """The value of an optional field; None = it is not set."""
    return getattr(message, name) if message.HasField(name) else None
