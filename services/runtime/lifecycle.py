"""Which calls are in flight, and how a service stops: refuse new ones, let running ones finish.

Knows nothing of gRPC or Ray: a call is the asyncio task that runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.runtime.errors import NotReady

__all__ = ["Lifecycle"]


class Lifecycle:
    """Counts calls in flight on one event loop and drains them on the way out."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._draining = False
        self._cut = False

    @property
    def num_in_flight(self) -> int:
        return len(self._tasks)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def cut(self) -> bool:
        """Whether the calls still running have been told to end."""
        return self._cut

    @contextmanager
    def call(self) -> Iterator[None]:
        """Marks the current task as a call in flight. Raises `NotReady` while draining."""
        if self._draining:
            raise NotReady("the service is shutting down", retry_after_s=1.0)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def drain(self, limit_s: float) -> int:
        """Refuses new calls, waits up to `limit_s` for the running ones, then cuts the rest.

        Returns how many were cut. A cut call ends with `NotReady`, so that its client may try
        another replica.
        """
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        left = {task for task in self._tasks if not task.done()}
        self._cut = True
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=limit_s)
        return len(left)
