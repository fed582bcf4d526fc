"""The parameters that `/v1/completions` and `/v1/chat/completions` share.

Types and wire sizes are checked here; ranges that the model or the engine sets (the context,
`n`, penalties) are checked by the service, whose error names the same field.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from services.gateway.schemas.base import (
    MAX_UINT32,
    Float,
    ModelName,
    StrictModel,
    UInt32,
    Unsupported,
    User,
    refuse,
)

__all__ = ["GenerationParameters", "StreamOptions"]


def _stop_list(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    raise refuse("invalid_type", "expected a string or a list of strings")


def _token_id_keys(value: dict[str, float]) -> dict[str, float]:
    for key in value:
        if not (key.isascii() and key.isdecimal() and int(key) <= MAX_UINT32):
            raise refuse("invalid_value", f"expected token ids as keys, got {key[:32]!r}")
    return value


class StreamOptions(StrictModel):
    """How a stream is sent."""

    include_usage: bool | None = Field(
        None,
        description="Send one more chunk before `[DONE]` with the usage and no choices; "
        "all other chunks then carry `usage: null`.",
    )
    include_obfuscation: Annotated[
        Any, Unsupported("chunks are not padded with random characters", (False,))
    ] = None


class GenerationParameters(StrictModel):
    """What both generation endpoints accept. Unset and null mean the default."""

    model: ModelName

    temperature: Float | None = Field(None, description="0 = greedy. Default 1.")
    top_p: Float | None = Field(None, description="Nucleus, in (0, 1]. Default 1.")
    n: UInt32 | None = Field(None, description="Choices per prompt. Default 1.")
    stop: Annotated[
        list[str] | None, BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None)
    ] = Field(None, description="Up to 16 strings that end the text; they are not part of it.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**64 - 1)] | None = Field(
        None, description="The same seed gives the same tokens whatever else the server runs."
    )
    presence_penalty: Float | None = Field(None, description="In [-2, 2]. Default 0.")
    frequency_penalty: Float | None = Field(None, description="In [-2, 2]. Default 0.")
    logit_bias: Annotated[dict[str, Float], AfterValidator(_token_id_keys)] | None = Field(
        None, description="Token id -> bias in [-100, 100], added to the logits."
    )
    user: User | None = None

    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="Only with `stream: true`.")

    # Beyond OpenAI's API, named as vLLM names them.
    top_k: Annotated[int, Field(ge=-1, le=MAX_UINT32)] | None = Field(
        None, description="Keep the k most likely tokens; 0 or -1 = all."
    )
    min_p: Float | None = Field(
        None, description="Drop tokens less likely than this times the best, in [0, 1]."
    )
    typical_p: Float | None = Field(None, description="Locally typical sampling, in (0, 1].")
    repetition_penalty: Float | None = Field(None, description="Above 0; 1 = off.")
    min_tokens: UInt32 | None = Field(None, description="Nothing ends a choice before this.")
    ignore_eos: bool | None = Field(None, description="Go on past the end-of-sequence token.")
    stop_token_ids: list[UInt32] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = Field(None, description="Default true.")
    allowed_token_ids: list[UInt32] | None = Field(None, description="Only these are generated.")
    banned_token_ids: list[UInt32] | None = Field(None, description="These never are.")
    beam_width: UInt32 | None = Field(None, description="Beam search; 0 = off.")
    length_penalty: Float | None = Field(None, description="Of beam search. Default 1.")
    prompt_logprobs: UInt32 | None = Field(
        None, description="Also return this many best candidates per prompt token; not streamed."
    )
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = Field(
        None, description="Lower runs first. Default 0."
    )

    @field_validator("stream_options")
    @classmethod
    def _options_need_a_stream(
        cls, value: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise refuse("invalid_value", "is only allowed together with stream: true")
        return value

    @field_validator("prompt_logprobs")
    @classmethod
    def _prompt_logprobs_are_not_streamed(
        cls, value: int | None, info: ValidationInfo
    ) -> int | None:
        if value is not None and info.data.get("stream"):
            raise refuse("invalid_value", "is not available together with stream: true")
        return value

    @property
    def wants_stream(self) -> bool:
        return bool(self.stream)

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)
