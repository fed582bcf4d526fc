"""Pictures within JSON: data URLs and plain base64.

Only their heads are read here; `services.gateway.pictures` decodes them, beside the event loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from services.gateway.schemas.base import StrictModel, Unsupported, refuse

__all__ = ["EncodedPicture", "ImageUrl", "PictureText"]

_EXPECTED = "expected a picture as a data URL (data:image/png;base64,...) or as base64"
# A data URL's type and parameters; none that we know is longer. Source: RFC 2397.
_MAX_HEAD_CHARS = 256
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture that is still text: `data[start:]` is base64. Nothing has been copied."""

    data: str
    start: int
    media_type: str  # as claimed; empty = not

    @property
    def num_bytes(self) -> int:
        """At most so many, once decoded."""
        return (len(self.data) - self.start) * 3 // 4


def _picture(value: Any) -> EncodedPicture:
    if not isinstance(value, str):
        raise refuse("invalid_type", _EXPECTED)
    picture = _located(value)
    if picture.start == len(value):
        raise refuse("invalid_value", f"{_EXPECTED}, got nothing")
    return picture


def _located(value: str) -> EncodedPicture:
    scheme = _SCHEME.match(value[:_MAX_HEAD_CHARS].lstrip())
    if scheme is None:
        return EncodedPicture(value, 0, "")
    if scheme[0].lower() != "data:":
        raise refuse(
            "unsupported_content",
            f"{_EXPECTED}; got an address of {scheme[0][:32]!r}, and nothing is fetched from any",
        )
    found = _DATA_URL.match(value, 0, _MAX_HEAD_CHARS)
    if found is None:
        raise refuse("invalid_value", _EXPECTED)
    return EncodedPicture(value, found.end(), (found[1] or "").lower())


PictureText = Annotated[
    EncodedPicture,
    PlainValidator(_picture),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A data URL, or base64. Addresses of other kinds are refused: nothing "
            "is fetched.",
        }
    ),
]


class ImageUrl(StrictModel):
    """OpenAI's way to say where a picture is: here, always in the URL itself."""

    url: PictureText
    detail: Annotated[Any, Unsupported("a picture is read as its model reads it", ("auto",))] = None
