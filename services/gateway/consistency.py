"""Reads that see one's own writes, over HTTP.

A write returns a token; a read that brings it sees the write on any replica. It travels in the
header `x-consistency-token`, both ways, or in a body. OpenAI's API knows no such thing, so every
write also sets it as a cookie: the `openai` client, and all others that keep cookies, read their
own writes without knowing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from starlette.requests import Request

__all__ = ["HEADER", "newest", "token_headers", "token_of"]

HEADER = "x-consistency-token"

_COOKIE = "orrery-consistency"
# Every replica has seen a write long before. A log that began anew meanwhile would never reach the
# token, so it must not stay for ever.
_COOKIE_SECONDS = 60
_COOKIE_VALUE = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


def token_of(request: Request) -> str:
    """What the client's reads must see; empty = whatever is there."""
    given = request.headers.get(HEADER)
    if given is not None:
        return given
    cookie = request.cookies.get(_COOKIE, "")
    return cookie if _COOKIE_VALUE.fullmatch(cookie) else ""


def token_headers(token: str) -> Sequence[tuple[bytes, bytes]]:
    """The headers of an answer to a write."""
    if not token:
        return ()
    headers = [(HEADER.encode(), token.encode())]
    if _COOKIE_VALUE.fullmatch(token):
        cookie = (
            f"{_COOKIE}={token}; Path=/v1; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
        )
        headers.append((b"set-cookie", cookie.encode()))
    return headers


def newest(tokens: Iterable[str]) -> str:
    """Of several writes' tokens the one that stands for all; empty where none has one.

    A token is a position in the log: `<milliseconds>-<number>`, as Redis counts.
    """
    return max((token for token in tokens if token), key=_position, default="")


def _position(token: str) -> tuple[int, ...]:
    return tuple(int(part) for part in token.split("-") if part.isdecimal())
