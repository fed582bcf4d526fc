"""`/v1/completions`: the request and the answer, whole or in chunks of the same shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from services.gateway.schemas.base import UInt32, Unsupported, refuse
from services.gateway.schemas.parameters import GenerationParameters
from services.gateway.schemas.usage import Usage

__all__ = ["Completion", "CompletionRequest"]

_TEXTS = TypeAdapter(list[str])
_TOKEN_IDS = TypeAdapter(list[UInt32])
_TOKEN_ID_LISTS = TypeAdapter(list[list[UInt32]])
_EXPECTED = "expected a string, a list of strings, a list of token ids or a list of such lists"


def _prompt_list(value: Any) -> list[str] | list[list[int]]:
    """The four forms of `prompt` as one: a list of texts or a list of token id lists."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise refuse("invalid_type", _EXPECTED)
    if not value:
        raise refuse("invalid_value", "expected at least one prompt, got an empty list")
    try:
        if isinstance(value[0], str):
            return _TEXTS.validate_python(value, strict=True)
        if isinstance(value[0], list):
            return _TOKEN_ID_LISTS.validate_python(value, strict=True)
        return [_TOKEN_IDS.validate_python(value, strict=True)]
    except ValidationError as error:
        where = "".join(f"[{part}]" for part in error.errors(include_input=False)[0]["loc"])
        raise refuse("invalid_type", f"{_EXPECTED}; wrong at prompt{where}") from None


_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer", "minimum": 0}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}},
    ]
}


class CompletionRequest(GenerationParameters):
    """Body of `POST /v1/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "orrery-llama",
                    "prompt": "The Lumen Guild",
                    "max_tokens": 32,
                    "temperature": 0,
                }
            ]
        }
    )

    # Already checked by its validator: checking a long list of token ids twice would cost.
    prompt: Annotated[Any, BeforeValidator(_prompt_list), WithJsonSchema(_PROMPT_SCHEMA)] = Field(
        description="Text is tokenized with the model's special tokens; token ids stay as they are."
    )
    max_tokens: UInt32 | None = Field(
        None, description="Most tokens per choice. Default 16; 0 only together with echo."
    )
    echo: bool | None = Field(None, description="Begin each choice with its prompt.")
    logprobs: UInt32 | None = Field(
        None, description="Return each token's log-probability and this many best candidates."
    )
    best_of: UInt32 | None = Field(
        None, description="Sample this many and return the n most likely; not streamed."
    )

    @field_validator("best_of")
    @classmethod
    def _best_is_known_at_the_end(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("stream") and value != (info.data.get("n") or 1):
            raise refuse("invalid_value", "cannot be combined with stream: true unless equal to n")
        return value

    suffix: Annotated[Any, Unsupported("the models do not fill in the middle", ("",))] = None


class CompletionLogprobs(BaseModel):
    """One entry per token in each list."""

    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="Null for a prompt's first token.")
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int] = Field(description="Where the token begins in the choice's text.")


class PromptTokenLogprob(BaseModel):
    logprob: float
    rank: int
    decoded_token: str


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None = Field(description="Null until the end.")
    stop_reason: str | int | None = Field(
        None, description="The stop string or stop token id that ended the text."
    )
    prompt_logprobs: list[dict[str, PromptTokenLogprob] | None] | None = None


class Completion(BaseModel):
    """The whole answer, or one event of the streamed one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="Identifies the weights.")
    choices: list[CompletionChoice]
    usage: Usage | None = None
