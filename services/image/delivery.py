"""A call's stream, given up when its time is up and its reader does not read. Knows no picture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TypeVar

from services.runtime.errors import DeadlineExceeded

__all__ = ["delivered"]

T = TypeVar("T")

# Whatever goes on in a call ends by itself at the deadline, and says what it was.
_GRACE_S = 1.0


async def delivered(stream: AsyncGenerator[T, None], deadline_s: float) -> AsyncGenerator[T, None]:
    """The items of a stream that watches its deadline (on `time.monotonic`) while it works.

    While it waits for its reader it cannot: where the reader is away then, the stream is closed, so
    that it gives back what it holds, and the reader that comes back is told `DeadlineExceeded` with
    `stage` "deliver".
    """
    loop = asyncio.get_running_loop()
    is_away = False
    closing: asyncio.Task[None] | None = None

    def give_up() -> None:
        nonlocal closing
        if is_away:
            closing = loop.create_task(stream.aclose())

    alarm = loop.call_later(deadline_s - time.monotonic() + _GRACE_S, give_up)
    try:
        async for item in stream:
            is_away = True
            yield item
            is_away = False
            if closing is not None:
                raise DeadlineExceeded(
                    "the time of the request was up before its answer was read", stage="deliver"
                )
    finally:
        alarm.cancel()
        await (stream.aclose() if closing is None else closing)
