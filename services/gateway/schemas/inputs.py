"""Texts or token ids, in the four forms that OpenAI's API takes them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from services.gateway.schemas.base import UInt32, refuse

__all__ = ["TextsOrTokens"]

_TEXTS = TypeAdapter(list[str])
_TOKEN_IDS = TypeAdapter(list[UInt32])
_TOKEN_ID_LISTS = TypeAdapter(list[list[UInt32]])
_EXPECTED = "expected a string, a list of strings, a list of token ids or a list of such lists"


def _as_list(value: Any, info: ValidationInfo) -> list[str] | list[list[int]]:
    """The four forms as one: a list of texts or a list of token id lists."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise refuse("invalid_type", _EXPECTED)
    if not value:
        raise refuse("invalid_value", "expected at least one entry, got an empty list")
    try:
        if isinstance(value[0], str):
            return _TEXTS.validate_python(value, strict=True)
        if isinstance(value[0], list):
            return _TOKEN_ID_LISTS.validate_python(value, strict=True)
        return [_TOKEN_IDS.validate_python(value, strict=True)]
    except ValidationError as error:
        where = "".join(f"[{part}]" for part in error.errors(include_input=False)[0]["loc"])
        message = f"{_EXPECTED}; wrong at {info.field_name}{where}"
        raise refuse("invalid_type", message) from None


_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer", "minimum": 0}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}},
    ]
}

# Checked by its validator alone: checking a long list of token ids twice would cost.
TextsOrTokens = Annotated[Any, BeforeValidator(_as_list), WithJsonSchema(_SCHEMA)]
