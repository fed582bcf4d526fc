"""`/v1/completions`: the request and the answer, whole or in chunks of the same shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from services.gateway.schemas.base import UInt32, Unsupported, refuse
from services.gateway.schemas.inputs import TextsOrTokens
from services.gateway.schemas.parameters import GenerationParameters
from services.gateway.schemas.usage import Usage

__all__ = ["Completion", "CompletionRequest"]


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

    prompt: TextsOrTokens = Field(
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
