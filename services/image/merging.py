"""Several streams of one call as one: in the order of arrival, all or none. Knows no picture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["merged"]

T = TypeVar("T")

# What a slow reader leaves lying; beyond it the streams wait.
_MAX_UNREAD = 4


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more will come."""

    error: Exception | None


async def merged(
    streams: Sequence[Callable[[], AsyncGenerator[T, None]]],
) -> AsyncGenerator[T, None]:
    """The items of all streams, which are opened here.

    The first that fails ends the others, and its error is raised. Closing this closes all of
    them, and returns when they are closed.
    """
    queue: asyncio.Queue[T | _End] = asyncio.Queue(_MAX_UNREAD)

    async def pump(open_stream: Callable[[], AsyncGenerator[T, None]]) -> None:
        async with aclosing(open_stream()) as stream:
            async for item in stream:
                await queue.put(item)

    async def pump_all() -> None:
        error: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for open_stream in streams:
                    group.create_task(pump(open_stream))
        except ExceptionGroup as failures:
            error = failures.exceptions[0]
        await queue.put(_End(error))

    pumping = asyncio.create_task(pump_all())
    try:
        while not isinstance(item := await queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        pumping.cancel()
        await asyncio.wait((pumping,))
