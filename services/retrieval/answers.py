"""Answers that may be large: built off the event loop, refused where they could not be sent.

Knows nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from services.runtime.errors import InvalidRequest
from services.runtime.offload import offload_if_large

__all__ = ["built", "check_size"]

# Building the answer of so many chunks would hold up the event loop.
_BUILD_IN_THREAD_CHUNKS = 64

T = TypeVar("T")


async def built(build: Callable[[], T], num_chunks: int) -> T:
    """What `build` makes: in a thread where it is of many chunks."""
    return await offload_if_large(num_chunks, build, above=_BUILD_IN_THREAD_CHUNKS)


def check_size(num_bytes: int, limit: int, field: str) -> None:
    """Raises `InvalidRequest` for an answer of more than `limit` bytes, naming what to lower."""
    if num_bytes > limit:
        raise InvalidRequest(
            f"{field}: the answer has {num_bytes} bytes or more; expected at most {limit}: ask for "
            "fewer, or without texts or vectors",
            field=field,
        )
