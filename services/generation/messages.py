"""Protobuf messages of `generation.proto` to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orrery.v1 import common_pb2, generation_pb2
from services.engine.errors import InvalidRequestError
from services.engine.request import (
    CompletionOutput,
    FinishReason,
    PositionLogprobs,
    RequestOutput,
    RequestTiming,
    SamplingParams,
    TokenLogprob,
)
from services.generation.backend import ModelInfo
from services.generation.collect import CollectedRequest
from services.generation.prompts import ChatPrompt, PromptInput, TextPrompt, TokenPrompt
from services.runtime.errors import OrreryError, kind_of

__all__ = [
    "batch_result",
    "completion_delta",
    "failed_result",
    "model_fields",
    "position_logprobs",
    "prompt_input",
    "sampling_params",
    "timing",
    "usage",
]

_FINISH_REASONS: Mapping[FinishReason, generation_pb2.FinishReason] = MappingProxyType(
    {
        FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
        FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
        FinishReason.CANCELLED: generation_pb2.FINISH_REASON_CANCELLED,
        FinishReason.DEADLINE: generation_pb2.FINISH_REASON_DEADLINE,
        FinishReason.ERROR: generation_pb2.FINISH_REASON_ERROR,
    }
)

_ROLES: Mapping[int, str] = MappingProxyType(
    {
        common_pb2.ROLE_SYSTEM: "system",
        common_pb2.ROLE_USER: "user",
        common_pb2.ROLE_ASSISTANT: "assistant",
        common_pb2.ROLE_TOOL: "tool",
    }
)


def sampling_params(message: generation_pb2.SamplingParams) -> SamplingParams:
    """The fields that are set; both sides use the same names. Raises `InvalidRequestError`."""
    settings: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.name == "logit_bias":
            settings["logit_bias"] = dict(value)
        elif descriptor.is_repeated:
            settings[descriptor.name] = tuple(value)
        else:
            settings[descriptor.name] = value
    return SamplingParams(**settings)


def prompt_input(message: common_pb2.Prompt, field: str = "prompt") -> PromptInput:
    """A prompt in whichever form it has. Raises `InvalidRequestError` when it has none."""
    match message.WhichOneof("kind"):
        case "text":
            return TextPrompt(message.text)
        case "token_ids":
            return TokenPrompt(list(message.token_ids.ids))
        case "chat":
            return _chat_prompt(message.chat, field)
        case _:
            raise InvalidRequestError(field, "expected text, token_ids or chat")


def _chat_prompt(message: common_pb2.ChatMessages, field: str) -> ChatPrompt:
    messages = []
    for position, turn in enumerate(message.messages):
        role = _ROLES.get(turn.role)
        if role is None:
            raise InvalidRequestError(
                f"{field}.messages[{position}].role", "expected system, user, assistant or tool"
            )
        entry = {"role": role, "content": turn.content}
        if turn.HasField("name"):
            entry["name"] = turn.name
        messages.append(entry)
    unset = not message.HasField("add_generation_prompt")
    return ChatPrompt(messages, unset or message.add_generation_prompt)


def usage(source: RequestOutput | CollectedRequest) -> common_pb2.Usage:
    """Tokens so far."""
    return common_pb2.Usage(
        prompt_tokens=source.num_prompt_tokens,
        completion_tokens=source.num_output_tokens,
        cached_tokens=source.num_cached_tokens,
    )


def timing(stages: RequestTiming, total_ns: int) -> common_pb2.Timing:
    """The engine's stages in nanoseconds, and the whole call's time as the service saw it."""
    return common_pb2.Timing(
        queue_ns=int(stages.queue_s * 1e9),
        prefill_ns=int(stages.prefill_s * 1e9),
        decode_ns=int(stages.decode_s * 1e9),
        total_ns=total_ns,
    )


def position_logprobs(
    positions: Iterable[PositionLogprobs],
) -> list[common_pb2.PositionLogprobs]:
    """One message per position."""
    return [
        common_pb2.PositionLogprobs(
            chosen=None if position.chosen is None else _token_logprob(position.chosen),
            top=[_token_logprob(candidate) for candidate in position.top],
        )
        for position in positions
    ]


def _token_logprob(candidate: TokenLogprob) -> common_pb2.TokenLogprob:
    return common_pb2.TokenLogprob(
        token_id=candidate.token_id,
        token=candidate.token,
        token_bytes=candidate.token_bytes,
        logprob=candidate.logprob,
        rank=candidate.rank,
    )


def _completion_fields(output: CompletionOutput) -> dict[str, Any]:
    """What a delta and a whole completion have in common: everything."""
    fields: dict[str, Any] = {
        "index": output.index,
        "text": output.text,
        "token_ids": output.token_ids,
        "logprobs": position_logprobs(output.logprobs or ()),
    }
    if output.finish_reason is not None:
        fields["finish_reason"] = _FINISH_REASONS[output.finish_reason]
    if isinstance(output.stop_reason, str):
        fields["stop_string"] = output.stop_reason
    elif output.stop_reason is not None:
        fields["stop_token_id"] = output.stop_reason
    if output.cumulative_logprob is not None:
        fields["cumulative_logprob"] = output.cumulative_logprob
    return fields


def completion_delta(output: CompletionOutput) -> generation_pb2.CompletionDelta:
    """What one choice gained."""
    return generation_pb2.CompletionDelta(**_completion_fields(output))


def batch_result(
    prompt_token_ids: Sequence[int], collected: CollectedRequest, total_ns: int
) -> generation_pb2.BatchResult:
    """One prompt's whole result."""
    return generation_pb2.BatchResult(
        completions=[
            generation_pb2.Completion(**_completion_fields(output))
            for _, output in sorted(collected.completions.items())
        ],
        prompt_token_ids=prompt_token_ids,
        prompt_logprobs=position_logprobs(collected.prompt_logprobs),
        usage=usage(collected),
        timing=timing(collected.timing, total_ns),
    )


def failed_result(error: OrreryError, total_ns: int) -> generation_pb2.BatchResult:
    """One prompt's failure, said as the status of a single call would say it."""
    kind = kind_of(error)
    return generation_pb2.BatchResult(
        error=generation_pb2.PromptError(
            reason=kind.reason,
            code=kind.grpc_status.value[0],
            message=error.message,
            field=error.field or "",
        ),
        usage=common_pb2.Usage(),
        timing=common_pb2.Timing(total_ns=total_ns),
    )


def model_fields(info: ModelInfo) -> dict[str, Any]:
    """The fields of `GetModelResponse` that describe the model itself."""
    return {
        "family": info.family,
        "backend": info.backend,
        "num_parameters": info.num_parameters,
        "hidden_size": info.hidden_size,
        "num_layers": info.num_layers,
        "num_heads": info.num_heads,
        "num_kv_heads": info.num_kv_heads,
        "head_dim": info.head_dim,
        "vocab_size": info.vocab_size,
        "dtype": info.dtype,
        "max_model_len": info.max_model_len,
        "weight_hash": info.weight_hash,
        "has_chat_template": info.has_chat_template,
        "cache": generation_pb2.CacheGeometry(
            block_size=info.cache.block_size,
            num_blocks=info.cache.num_blocks,
            bytes_per_block=info.cache.bytes_per_block,
            prefix_caching=info.cache.prefix_caching,
        ),
    }
