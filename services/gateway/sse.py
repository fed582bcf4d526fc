"""Server-sent events: the bytes on the wire. Knows nothing of what the events say.

Source: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

__all__ = ["DONE", "HEADERS", "event"]

DONE = b"data: [DONE]\n\n"

HEADERS: Mapping[bytes, bytes] = MappingProxyType(
    {
        b"content-type": b"text/event-stream; charset=utf-8",
        b"cache-control": b"no-cache",
        # Asks nginx, and proxies that follow it, not to hold events back.
        b"x-accel-buffering": b"no",
    }
)


def event(data: Any, name: str | None = None) -> bytes:
    """One event whose data is `data` as JSON, which holds no line break."""
    kind = b"" if name is None else b"event: " + name.encode() + b"\n"
    return kind + b"data: " + orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n\n"
