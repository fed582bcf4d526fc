"""`/tokenize` and `/detokenize`, in the shape that vLLM gave them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.gateway.schemas.base import ModelName, StrictModel, UInt32, refuse
from services.gateway.schemas.chat import ChatMessage

__all__ = ["DetokenizeRequest", "DetokenizeResponse", "TokenizeRequest", "TokenizeResponse"]


class TokenizeRequest(StrictModel):
    """Body of `POST /tokenize`: either `prompt` or `messages`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "orrery-llama", "prompt": "The Lumen Guild"}]}
    )

    model: ModelName
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = Field(
        None, description="Add the model's special tokens to `prompt`. Default true."
    )
    add_generation_prompt: bool | None = Field(
        None, description="Whether the template of `messages` opens the next turn. Default true."
    )
    return_token_strs: bool | None = Field(None, description="Return each token's text, too.")

    @model_validator(mode="after")
    def _one_input(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise refuse("invalid_value", "expected either prompt or messages")
        if self.messages is not None and self.add_special_tokens is not None:
            raise refuse("invalid_value", "add_special_tokens: the chat template states its own")
        if self.prompt is not None and self.add_generation_prompt is not None:
            raise refuse("invalid_value", "add_generation_prompt: is only allowed with messages")
        return self


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(StrictModel):
    """Body of `POST /detokenize`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "orrery-llama", "tokens": [1, 42]}]}
    )

    model: ModelName
    tokens: list[UInt32]
    skip_special_tokens: bool | None = Field(
        None, description="Leave special tokens out. Default false: what goes in comes back."
    )


class DetokenizeResponse(BaseModel):
    prompt: str
