"""Errors that name a field as the client wrote it, where the services call it otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from services.runtime.errors import OrreryError

__all__ = ["as_client_wrote"]


def as_client_wrote(error: OrreryError, field_names: Mapping[str, str]) -> OrreryError:
    """The same error with its field named, in the message too, as the client named it.

    `field_names` maps the services' names to the client's. A name stands for what lies in it, too:
    `{"inputs": "input"}` makes `inputs[3].text` into `input[3].text`.
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
    for name in sorted(field_names, key=len, reverse=True):
        if field == name or field.startswith((f"{name}.", f"{name}[")):
            return field_names[name] + field.removeprefix(name)
    return field
