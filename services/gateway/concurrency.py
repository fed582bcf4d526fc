"""Many calls at once, but not all of them. Knows nothing of what is called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["SharedLook", "both", "map_bounded"]

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


class SharedLook(Generic[ResultT]):
    """Looks at most once in `ttl_s`, however many ask: they share what it finds, or wait for it."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, ResultT]], ttl_s: float) -> None:
        self._look = look
        self._ttl_s = ttl_s
        self._looking: asyncio.Task[ResultT] | None = None
        self._began_s = 0.0

    async def __call__(self) -> ResultT:
        """What a look found that began less than `ttl_s` ago, or still goes on."""
        now_s = time.monotonic()
        looking = self._looking
        if looking is None or (looking.done() and now_s - self._began_s >= self._ttl_s):
            looking = self._looking = asyncio.create_task(self._look())
            self._began_s = now_s
        return await asyncio.shield(looking)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
