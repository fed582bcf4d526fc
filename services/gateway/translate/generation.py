"""From OpenAI's parameters to the contract's messages. Knows nothing of how they are sent."""

from __future__ import annotations

from typing import Any

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from services.gateway.schemas.chat import ChatCompletionRequest, ChatMessage
from services.gateway.schemas.completions import CompletionRequest
from services.gateway.schemas.parameters import GenerationParameters

__all__ = [
    "chat_prompt",
    "chat_sampling",
    "completion_prompts",
    "completion_sampling",
    "text_prompt",
    "token_prompt",
]

# OpenAI documents it for this endpoint alone; chat goes on to the end of the context.
DEFAULT_COMPLETION_TOKENS = 16

_ROLES = {
    "system": common_pb2.ROLE_SYSTEM,
    "developer": common_pb2.ROLE_SYSTEM,
    "user": common_pb2.ROLE_USER,
    "assistant": common_pb2.ROLE_ASSISTANT,
}
# Same name, same meaning: passed on as they are.
_SAME = (
    "temperature",
    "top_p",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop",
    "stop_token_ids",
    "skip_special_tokens",
    "allowed_token_ids",
    "banned_token_ids",
    "beam_width",
    "length_penalty",
    "prompt_logprobs",
)


def chat_prompt(
    messages: list[ChatMessage], add_generation_prompt: bool | None
) -> common_pb2.Prompt:
    """A conversation for the model's chat template."""
    chat = common_pb2.ChatMessages(
        messages=[
            common_pb2.ChatMessage(role=_ROLES[m.role], content=m.content, name=m.name)
            for m in messages
        ],
        add_generation_prompt=add_generation_prompt,
    )
    return common_pb2.Prompt(chat=chat)


def text_prompt(text: str) -> common_pb2.Prompt:
    """A text, tokenized by the service."""
    return common_pb2.Prompt(text=text)


def token_prompt(token_ids: list[int]) -> common_pb2.Prompt:
    """Token ids, taken as they are."""
    return common_pb2.Prompt(token_ids=common_pb2.TokenIds(ids=token_ids))


def completion_prompts(body: CompletionRequest) -> list[common_pb2.Prompt]:
    """One prompt per entry of `prompt`."""
    return [
        text_prompt(entry) if isinstance(entry, str) else token_prompt(entry)
        for entry in body.prompt
    ]


def chat_sampling(body: ChatCompletionRequest) -> pb.SamplingParams:
    """`logprobs` is a switch here, and `top_logprobs` the number."""
    values = _sampling_values(body)
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit is not None:
        values["max_tokens"] = limit
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return pb.SamplingParams(**values)


def completion_sampling(body: CompletionRequest) -> pb.SamplingParams:
    """`echo` with `logprobs` asks for those of the prompt, too."""
    values = _sampling_values(body)
    max_tokens = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    values["max_tokens"] = max_tokens
    if body.logprobs is not None:
        values["logprobs"] = body.logprobs
    if body.best_of is not None:
        values["best_of"] = body.best_of
    if body.echo and body.prompt_logprobs is None:
        if body.logprobs is not None:
            values["prompt_logprobs"] = body.logprobs
        elif max_tokens == 0:
            # Generating nothing is a request only when the prompt is computed for its own sake.
            values["prompt_logprobs"] = 0
    return pb.SamplingParams(**values)


def _sampling_values(body: GenerationParameters) -> dict[str, Any]:
    values = {name: value for name in _SAME if (value := getattr(body, name)) is not None}
    if body.top_k is not None:
        values["top_k"] = max(body.top_k, 0)  # -1 is another spelling of "all"
    if body.logit_bias is not None:
        values["logit_bias"] = {int(key): bias for key, bias in body.logit_bias.items()}
    if body.seed is not None:
        values["seed"] = body.seed % 2**64  # OpenAI's seeds are signed, the contract's are not
    if body.include_stop_str_in_output is not None:
        values["include_stop_in_output"] = body.include_stop_str_in_output
    return values
