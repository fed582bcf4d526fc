"""CPU work on the event loop while it is small, beside it when it is large. Knows no work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["offload_if_large"]

# Up to so many characters or tokens, tokenizing takes less time than handing it to a thread.
_INLINE_ITEMS = 4096

T = TypeVar("T")


async def offload_if_large(
    num_items: int, work: Callable[[], T], *, above: int = _INLINE_ITEMS
) -> T:
    """Runs CPU work inline when it is small, in a thread when it would hold up the event loop."""
    if num_items <= above:
        return work()
    return await asyncio.to_thread(work)
