"""Texts or token ids, in the four forms that OpenAI's API takes them, and pictures among texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from services.gateway.schemas.base import MAX_ENTRIES, StrictModel, UInt32, refuse
from services.gateway.schemas.pictures import EncodedPicture, ImageUrl

__all__ = ["TextsOrTokens", "TextsTokensOrPictures"]

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
    if isinstance(value[0], str | list) and len(value) > MAX_ENTRIES:
        raise refuse("invalid_value", f"expected at most {MAX_ENTRIES} entries, got {len(value)}")
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


def _url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class InputPart(StrictModel):
    """One input, as a part of a message's content is written."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Annotated[ImageUrl, BeforeValidator(_url)] | None = None

    @model_validator(mode="after")
    def _is_what_its_type_says(self) -> InputPart:
        is_text = self.type == "text"
        if (self.text is None) == is_text or (self.image_url is None) != is_text:
            raise refuse("invalid_value", f"expected {self.type} and nothing else beside type")
        return self

    @property
    def content(self) -> str | EncodedPicture:
        """The text or the picture."""
        if self.image_url is not None:
            return self.image_url.url
        assert self.text is not None
        return self.text


def _part(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


_PARTS = TypeAdapter(
    Annotated[list[Annotated[InputPart, BeforeValidator(_part)]], Field(max_length=MAX_ENTRIES)]
)


def _as_mixed_list(
    value: Any, info: ValidationInfo
) -> list[str] | list[list[int]] | list[str | EncodedPicture]:
    """The four forms; or one part, or parts and strings in one list."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return [part.content for part in _PARTS.validate_python(value, strict=True)]
    return _as_list(value, info)


_PART_SCHEMA = InputPart.model_json_schema()
_PART_SCHEMA["properties"]["image_url"] = {
    "type": "object",
    "properties": {"url": {"type": "string", "description": "A data URL, or base64."}},
}
del _PART_SCHEMA["$defs"]
TextsTokensOrPictures = Annotated[
    Any,
    BeforeValidator(_as_mixed_list),
    WithJsonSchema(
        {
            "anyOf": [
                *_SCHEMA["anyOf"],
                {"type": "array", "items": {"anyOf": [{"type": "string"}, _PART_SCHEMA]}},
                _PART_SCHEMA,
            ]
        }
    ),
]
