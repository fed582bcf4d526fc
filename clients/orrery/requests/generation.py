"""Requests of the generation service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from orrery.errors import InvalidRequestError
from orrery.requests.common import assign
from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb

__all__ = [
    "Chat",
    "PromptInput",
    "SamplingOptions",
    "build_batch",
    "build_detokenize",
    "build_generate",
    "build_prompt",
    "build_sampling",
    "build_score",
    "build_tokenize",
]


@dataclass(frozen=True, slots=True)
class Chat:
    """Chat messages, where the model's template shall not open the assistant's turn."""

    messages: Iterable[Mapping[str, object]]
    add_generation_prompt: bool = True


PromptInput: TypeAlias = str | Iterable[int] | Iterable[Mapping[str, object]] | Chat
"""A text, token ids, or chat messages.

A message is `{"role": ..., "content": ...}`, with a role of system, user, assistant or tool, and
may have the participant's `"name"`.
"""


class SamplingOptions(TypedDict, total=False):
    """The fields of `orrery.v1.SamplingParams`. None = the server's default."""

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    allowed_token_ids: Iterable[int] | None
    banned_token_ids: Iterable[int] | None
    seed: int | None
    n: int | None
    best_of: int | None
    stop: str | Iterable[str] | None
    stop_token_ids: Iterable[int] | None
    include_stop_in_output: bool | None
    ignore_eos: bool | None
    logprobs: int | None
    prompt_logprobs: int | None
    skip_special_tokens: bool | None
    beam_width: int | None
    length_penalty: float | None


_ROLES = {
    "system": common_pb2.ROLE_SYSTEM,
    "user": common_pb2.ROLE_USER,
    "assistant": common_pb2.ROLE_ASSISTANT,
    "tool": common_pb2.ROLE_TOOL,
}
_MESSAGE_KEYS = frozenset({"role", "content", "name"})


def build_generate(
    prompt: PromptInput, sampling: Mapping[str, Any], *, priority: int
) -> pb.GenerateRequest:
    """A `Generate` request."""
    request = pb.GenerateRequest(prompt=build_prompt(prompt), sampling=build_sampling(sampling))
    assign(request, "priority", priority)
    return request


def build_batch(
    prompts: Iterable[PromptInput], sampling: Mapping[str, Any], *, priority: int
) -> pb.GenerateBatchRequest:
    """A `GenerateBatch` request."""
    if isinstance(prompts, str):
        raise TypeError("prompts: expected several prompts, got one text")
    request = pb.GenerateBatchRequest(
        prompts=[build_prompt(prompt, f"prompts[{i}]") for i, prompt in enumerate(prompts)],
        sampling=build_sampling(sampling),
    )
    assign(request, "priority", priority)
    return request


def build_score(
    target: PromptInput, context: PromptInput | None, top_logprobs: int | None
) -> pb.ScoreRequest:
    """A `Score` request."""
    request = pb.ScoreRequest(target=build_prompt(target, "target"))
    if context is not None:
        request.context.CopyFrom(build_prompt(context, "context"))
    if top_logprobs is not None:
        assign(request, "top_logprobs", top_logprobs)
    return request


def build_tokenize(prompt: PromptInput, add_special_tokens: bool | None) -> pb.TokenizeRequest:
    """A `Tokenize` request."""
    request = pb.TokenizeRequest(prompt=build_prompt(prompt))
    if add_special_tokens is not None:
        assign(request, "add_special_tokens", add_special_tokens)
    return request


def build_detokenize(
    token_ids: Iterable[int], skip_special_tokens: bool | None
) -> pb.DetokenizeRequest:
    """A `Detokenize` request."""
    request = pb.DetokenizeRequest()
    assign(request, "token_ids", token_ids)
    if skip_special_tokens is not None:
        assign(request, "skip_special_tokens", skip_special_tokens)
    return request


def build_sampling(options: Mapping[str, Any]) -> pb.SamplingParams:
    """Sampling parameters from keyword arguments.

    Raises:
        TypeError: An unknown keyword, or a value of a wrong type.
        InvalidRequestError: A number outside its field's range.
    """
    message = pb.SamplingParams()
    for name, value in options.items():
        if name not in SamplingOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}: not a sampling parameter")
        if value is None:
            continue
        if name == "stop" and isinstance(value, str):
            value = (value,)
        assign(message, name, value)
    return message


def build_prompt(prompt: PromptInput, field: str = "prompt") -> common_pb2.Prompt:
    """A prompt in one of its three forms. `field` names it in errors.

    Raises:
        TypeError: It is neither text, nor integers, nor chat messages.
        InvalidRequestError: Text that is not Unicode, an id out of range, an unknown role or key.
    """
    message = common_pb2.Prompt()
    if isinstance(prompt, str):
        assign(message, "text", prompt, field)
        return message
    if isinstance(prompt, Chat):
        _fill_chat(message.chat, prompt.messages, field)
        message.chat.add_generation_prompt = prompt.add_generation_prompt
        return message
    if isinstance(prompt, bytes | bytearray | Mapping) or not isinstance(prompt, Iterable):
        raise TypeError(
            f"{field}: expected a text, token ids or chat messages, got {type(prompt).__name__}"
        )
    items = list(prompt)
    if items and isinstance(items[0], Mapping):
        _fill_chat(message.chat, items, field)
    else:
        message.token_ids.SetInParent()  # an empty list is still token ids
        assign(message.token_ids, "ids", items, field)
    return message


def _fill_chat(chat: common_pb2.ChatMessages, messages: Iterable[Any], field: str) -> None:
    for i, turn in enumerate(messages):
        where = f"{field}[{i}]"
        if not isinstance(turn, Mapping):
            raise TypeError(f"{where}: expected a chat message, got {type(turn).__name__}")
        unknown = sorted(set(turn) - _MESSAGE_KEYS)
        missing = sorted({"role", "content"} - set(turn))
        if unknown or missing:
            problem = f"unknown key {unknown[0]!r}" if unknown else f"no {missing[0]!r}"
            raise InvalidRequestError(
                f"{where}: {problem}; expected role, content and optionally name", field=where
            )
        role = _ROLES.get(turn["role"])
        if role is None:
            raise InvalidRequestError(
                f"{where}.role: expected one of {', '.join(_ROLES)}, got {turn['role']!r}",
                field=f"{where}.role",
            )
        message = chat.messages.add(role=role)
        for key in ("content", "name"):
            if turn.get(key) is not None:
                assign(message, key, turn[key], f"{where}.{key}")
