"""`/v1/chat/completions`: the request and both forms of the answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from services.gateway.schemas.base import StrictModel, UInt32, Unsupported, refuse
from services.gateway.schemas.parameters import GenerationParameters
from services.gateway.schemas.usage import Usage

__all__ = ["ChatCompletion", "ChatCompletionChunk", "ChatCompletionRequest", "ChatMessage"]

_NO_TOOLS = "the models call no tools"


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


def _content_text(value: Any) -> Any:
    """Content as one string: its text parts joined by line breaks."""
    if not isinstance(value, list):
        return value
    return "\n".join(_part_text(index, part) for index, part in enumerate(value))


def _part_text(index: int, part: Any) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise refuse("invalid_type", f"part {index}: expected an object with type and text")
    if part["type"] != "text":
        kind = part["type"][:32]
        raise refuse(
            "unsupported_content", f"part {index}: expected a part of type text, got {kind!r}"
        )
    unknown = sorted(set(part) - {"type", "text"})
    if unknown:
        raise refuse("unknown_parameter", f"part {index}: unknown field {unknown[0][:64]!r}")
    if not isinstance(part.get("text"), str):
        raise refuse("invalid_type", f"part {index}: expected text to be a string")
    text: str = part["text"]
    return text


class ChatMessage(StrictModel):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="`developer` is another name of `system`."
    )
    content: Annotated[
        str, BeforeValidator(_content_text, json_schema_input_type=str | list[TextPart])
    ]
    name: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Passed to the model's chat template."
    )
    # What an assistant message that came from the SDK carries as null.
    refusal: Annotated[Any, Unsupported("the models send no refusals")] = None
    audio: Annotated[Any, Unsupported("the models read text only")] = None
    annotations: Annotated[Any, Unsupported("the models send no annotations", ([],))] = None
    tool_calls: Annotated[Any, Unsupported(_NO_TOOLS, ([],))] = None
    tool_call_id: Annotated[Any, Unsupported(_NO_TOOLS)] = None
    function_call: Annotated[Any, Unsupported(_NO_TOOLS)] = None


class ChatCompletionRequest(GenerationParameters):
    """Body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "orrery-llama",
                    "messages": [{"role": "user", "content": "Who founded the Lumen Guild?"}],
                    "max_completion_tokens": 64,
                    "temperature": 0,
                }
            ]
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: UInt32 | None = Field(
        None, description="The older name of `max_completion_tokens`."
    )
    max_completion_tokens: UInt32 | None = Field(
        None, description="Most tokens of the answer. Default: what is left of the context."
    )
    logprobs: bool | None = Field(None, description="Return each token's log-probability.")
    top_logprobs: UInt32 | None = Field(
        None, description="And this many best candidates, up to 20. Needs `logprobs: true`."
    )
    add_generation_prompt: bool | None = Field(
        None, description="Whether the template opens the assistant's turn. Default true."
    )
    safety_identifier: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="As `user`: only a hash of it goes to the access log."
    )

    # Parameters of OpenAI's API whose neutral value asks for nothing.
    response_format: Annotated[Any, Unsupported("the answer is free text", ({"type": "text"},))] = (
        None
    )
    tools: Annotated[Any, Unsupported(_NO_TOOLS, ([],))] = None
    tool_choice: Annotated[Any, Unsupported(_NO_TOOLS, ("none",))] = None
    parallel_tool_calls: Annotated[Any, Unsupported(_NO_TOOLS, (True, False))] = None
    functions: Annotated[Any, Unsupported(_NO_TOOLS, ([],))] = None
    function_call: Annotated[Any, Unsupported(_NO_TOOLS, ("none",))] = None
    modalities: Annotated[Any, Unsupported("the models write text only", (["text"],))] = None
    audio: Annotated[Any, Unsupported("the models write text only")] = None
    prediction: Annotated[Any, Unsupported("there is no predicted output")] = None
    reasoning_effort: Annotated[Any, Unsupported("the models do not reason apart", ("none",))] = (
        None
    )
    verbosity: Annotated[Any, Unsupported("length is set by the token limits", ("medium",))] = None
    web_search_options: Annotated[Any, Unsupported("there is no web search")] = None
    moderation: Annotated[Any, Unsupported("there is no moderation")] = None
    store: Annotated[Any, Unsupported("answers are not stored", (False,))] = None
    metadata: Annotated[Any, Unsupported("answers are not stored", ({},))] = None
    service_tier: Annotated[Any, Unsupported("there is one tier", ("auto", "default"))] = None
    prompt_cache_key: Annotated[
        Any, Unsupported("the prefix cache finds shared prefixes by their content")
    ] = None
    prompt_cache_retention: Annotated[
        Any, Unsupported("the prefix cache is in memory", ("in_memory",))
    ] = None
    prompt_cache_options: Annotated[
        Any, Unsupported("the prefix cache is implicit", ({}, {"mode": "implicit"}))
    ] = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit_only(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") is not None:
            raise refuse("invalid_value", "cannot be combined with max_tokens: use one of the two")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _top_needs_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise refuse("invalid_value", "is only allowed together with logprobs: true")
        return value


class TopLogprob(BaseModel):
    token: str
    logprob: float = Field(description="Natural logarithm; -9999 stands for zero probability.")
    bytes: list[int] | None = Field(description="The token's UTF-8 bytes, maybe half a character.")


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: None = None


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class ChatChoice(BaseModel):
    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None = Field(
        None, description="The stop string or stop token id that ended the text."
    )


class ChatCompletion(BaseModel):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="Identifies the weights.")
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(BaseModel):
    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(BaseModel):
    """One event of the streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
