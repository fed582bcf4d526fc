"""Errors that name a field as the client wrote it, where the services call it otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from services.runtime.errors import OrreryError

__all__ = ["as_client_wrote"]

_FILTER = re.compile(r"(?:options\.)?filter(?=[.\[]|$)")
# A picture's bytes, which over HTTP are the picture: a data URL, or a file of a form.
_PICTURE_PART = re.compile(r"(?<![A-Za-z_])(image|mask|images\[\d+\])\.(?:data|media_type)$")
_FILTER_PART = re.compile(r"all_of|any_of|not|field|values|operator")
# The contract's words for a filter's parts -> OpenAI's.
_FILTER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "all_of": "filters",
        "any_of": "filters",
        "not": "filter",
        "field": "key",
        "values": "value",
        "operator": "type",
    }
)


def as_client_wrote(error: OrreryError, field_names: Mapping[str, str]) -> OrreryError:
    """The same error with its field named, in the message too, as the client named it.

    `field_names` maps the services' names to the client's. A name stands for what lies in it, too:
    `{"inputs": "input"}` makes `inputs[3].text` into `input[3].text`; with an empty name the client
    wrote the parts without their whole: `{"options": ""}` makes `options.k` into `k`.
    """
    field = error.field
    if field is None:
        return error
    theirs = _translated(field, field_names)
    if theirs != field:
        if error.message.startswith(f"{field}: "):
            error.message = theirs + error.message.removeprefix(field)
        error.field = theirs
    return error


def _translated(field: str, field_names: Mapping[str, str]) -> str:
    """By the longest name that `field` is or lies in."""
    within_filter = _FILTER.match(field)
    if within_filter is not None:
        whole, parts = field[: within_filter.end()], field[within_filter.end() :]
        field = whole + _FILTER_PART.sub(lambda word: _FILTER_WORDS[word[0]], parts)
    field = _PICTURE_PART.sub(r"\1", field)
    for name in sorted(field_names, key=len, reverse=True):
        if field == name or field.startswith((f"{name}.", f"{name}[")):
            return (field_names[name] + field.removeprefix(name)).removeprefix(".")
    return field
