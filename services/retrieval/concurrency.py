"""Small tools for tasks of one event loop. Knows nothing of documents, Redis or gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

__all__ = ["KeyedLocks", "SharedCall"]


class KeyedLocks:
    """One lock per key, first come first served; kept only while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Waits for the key, and holds it."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


class SharedCall:
    """Joins concurrent calls of one function: each caller's answer began after it asked.

    running:   [---- A ----][---- B ----]
    asked:        x  x  x        these wait for B, together
    """

    def __init__(self, function: Callable[[], Awaitable[None]]) -> None:
        self._function = function
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Raises what the function raises. Cancelling a caller leaves the others' call alone."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
            self._next.add_done_callback(_look_at)
        await asyncio.shield(self._next)

    async def _run_after(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        await self._function()


def _look_at(task: asyncio.Task[None]) -> None:
    """Marks an error as seen: every caller may have gone."""
    if not task.cancelled():
        task.exception()
