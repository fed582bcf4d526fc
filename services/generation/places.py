"""What one caller's many prompts may have of an engine. Knows nothing of protobuf.

A prompt that finds no place while others of its caller run waits until one of those has ended: it
takes a place that its caller had, and what the others have computed is not lost to a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.engine.errors import QueueFullError

__all__ = ["Places"]

T = TypeVar("T")


class Places:
    """At most `limit` prompts of one caller at a time."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)
        self._num_tried = 0  # that are with the engine, or were not told yet that it is full
        self._ended = asyncio.Event()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, which is called again after a `QueueFullError`.

        Raises `QueueFullError` where no other of the caller's prompts has a place, either.
        """
        async with self._free:
            while True:
                try:
                    return await self._tried(work)
                except QueueFullError:
                    if self._num_tried == 0:
                        self._wake()
                        raise
                await self._ended.wait()

    async def _tried(self, work: Callable[[], Awaitable[T]]) -> T:
        has_place = True
        self._num_tried += 1
        try:
            return await work()
        except QueueFullError:
            has_place = False
            raise
        finally:
            self._num_tried -= 1
            if has_place:
                self._wake()

    def _wake(self) -> None:
        """Those who wait try again: the next wait is for another end."""
        self._ended.set()
        self._ended = asyncio.Event()
