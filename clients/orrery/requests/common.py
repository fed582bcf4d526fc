"""What the requests of every service are built with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orrery.channels import MAX_MESSAGE_BYTES
from orrery.errors import InvalidRequestError

__all__ = ["assign", "assign_text_or_ids", "choose", "read_file"]


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


def assign_text_or_ids(message: Any, value: str | Iterable[int], field: str) -> None:
    """Sets `text` or `token_ids`, whichever a value is, with errors that name `field`."""
    if isinstance(value, str):
        assign(message, "text", value, field)
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        message.token_ids.SetInParent()
        assign(message.token_ids, "ids", list(value), field)
    else:
        raise TypeError(f"{field}: expected a text or token ids, got {type(value).__name__}")


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


def read_file(path: Path, field: str, *, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """What is in a file that is to go into a request. Blocks.

    Raises:
        InvalidRequestError: It cannot be read, or is larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # the second for a name with a zero byte
        problem = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"{path.name}: cannot be read: {problem}", field=field) from error
    if len(data) > max_bytes:
        raise InvalidRequestError(f"{path.name}: larger than {max_bytes} bytes", field=field)
    return data
