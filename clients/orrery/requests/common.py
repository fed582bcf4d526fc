"""What the requests of every service are built with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orrery.errors import InvalidRequestError

__all__ = ["assign", "choose"]


def assign(message: Any, name: str, value: Any, field: str | None = None) -> None:
    """Sets a scalar, repeated or map field, with errors that name it."""
    where = field or name
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    try:
        if not descriptor.is_repeated:
            setattr(message, name, value)
        elif isinstance(value, Mapping):
            getattr(message, name).update(value)
        else:
            getattr(message, name).extend(value)
    except ValueError as error:  # out of the field's range, or not encodable as UTF-8
        raise InvalidRequestError(f"{where}: {error}", field=where) from error
    except (TypeError, AttributeError) as error:
        raise TypeError(f"{where}: {type(value).__name__} does not fit: {error}") from error


def choose(choices: Mapping[str, int], value: Any, field: str) -> int:
    """The number of an enum's value that is chosen by its name.

    Raises:
        InvalidRequestError: There is no such choice.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidRequestError(
            f"{field}: expected one of {', '.join(choices)}, got {value!r}", field=field
        )
    return choices[value]
