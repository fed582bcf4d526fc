"""Which calls are in flight, and how a service stops: refuse new ones, let running ones finish.

Knows nothing of gRPC or Ray: a call is the asyncio task that runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.runtime.errors import NotReady

__all__ = ["InFlight", "Lifecycle"]

_ENDING_S = 2.0  # how long calls that were cut may take to say so


@dataclass(slots=True, eq=False)
class InFlight:
    """One call that runs. `_sending`: its task is within the transport, not within the service."""

    task: asyncio.Task[object]
    _cut: bool = False
    _sending: bool = False

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around handing a message over. Raises `CancelledError` after it, where a cut came.

        A task cancelled within gRPC's own code ends without a status, and its client waits on: so
        a cut that comes meanwhile waits until the message is gone.
        """
        self._sending = True
        try:
            yield
        finally:
            self._sending = False
        if self._cut:
            raise asyncio.CancelledError

    def cut(self) -> None:
        """Has the call end: now, or once the message is gone that it sends."""
        self._cut = True
        if not self._sending:
            self.task.cancel()


class Lifecycle:
    """Counts calls in flight on one event loop and drains them on the way out."""

    def __init__(self) -> None:
        self._calls: set[InFlight] = set()
        self._draining = False
        self._cut = False

    @property
    def num_in_flight(self) -> int:
        return len(self._calls)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def cut(self) -> bool:
        """Whether the calls still running have been told to end."""
        return self._cut

    @contextmanager
    def call(self) -> Iterator[InFlight]:
        """Marks the current task as a call in flight. Raises `NotReady` while draining."""
        if self._draining:
            raise NotReady("the service is shutting down", retry_after_s=1.0)
        task = asyncio.current_task()
        assert task is not None
        call = InFlight(task)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    async def drain(self, limit_s: float) -> int:
        """Refuses new calls, waits up to `limit_s` for the running ones, then cuts the rest.

        Returns how many were cut. A cut call ends with `NotReady`, so that its client may try
        another replica; one whose client does not read ends with its connection.
        """
        self._draining = True
        if self._calls:
            await asyncio.wait({call.task for call in self._calls}, timeout=limit_s)
        left = {call for call in self._calls if not call.task.done()}
        self._cut = True
        for call in left:
            call.cut()
        if left:
            await asyncio.wait({call.task for call in left}, timeout=min(limit_s, _ENDING_S))
        return len(left)
