"""Many calls at once, but not all of them. Knows nothing of what is called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

__all__ = ["both", "map_bounded"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")

# Calls that one request has under way at the same time.
_MAX_CALLS = 8


async def map_bounded(
    work: Callable[[ItemT], Awaitable[ResultT]], items: Sequence[ItemT]
) -> list[ResultT]:
    """The results in the order of the items. The first failure cancels the rest and is raised."""
    slots = asyncio.Semaphore(_MAX_CALLS)

    async def one(item: ItemT) -> ResultT:
        async with slots:
            return await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def both(
    first: Coroutine[Any, Any, FirstT], second: Coroutine[Any, Any, SecondT]
) -> tuple[FirstT, SecondT]:
    """The results of two at once. The first failure cancels the other and is raised."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
