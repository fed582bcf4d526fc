"""Page tokens: where the next page begins, in a form that clients do not take apart."""

from __future__ import annotations

import base64
import binascii

from services.runtime.errors import InvalidRequest

__all__ = ["page_limit", "read_name", "read_time", "token_of_name", "token_of_time"]

DEFAULT_PAGE_SIZE = 100


def page_limit(size: int | None, most: int) -> int:
    """The page's size, or the default. Raises `InvalidRequest`."""
    if size is None:
        return min(DEFAULT_PAGE_SIZE, most)
    if not 1 <= size <= most:
        raise InvalidRequest(f"page_size: expected 1 to {most}, got {size}", field="page_size")
    return size


def token_of_name(name: str) -> str:
    """After the entry of that name."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def read_name(token: str) -> str:
    """The name of `token_of_name`; "" for no token. Raises `InvalidRequest`."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _unreadable() from None


def token_of_time(at_ms: int, name: str) -> str:
    """Before the entry made at that time, of that name."""
    return token_of_name(f"{at_ms}:{name}")


def read_time(token: str) -> tuple[int, str] | None:
    """The time and name of `token_of_time`; None for no token. Raises `InvalidRequest`."""
    if not token:
        return None
    at_ms, _, name = read_name(token).partition(":")
    if not (at_ms.isascii() and at_ms.isdigit() and len(at_ms) < 20):
        raise _unreadable()
    return int(at_ms), name


def _unreadable() -> InvalidRequest:
    return InvalidRequest("page_token: not a token of this service", field="page_token")
