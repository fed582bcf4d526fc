"""Which calls are in flight, and how a service stops: refuse new ones, let running ones finish.

    serving ──leave──> leaving ───limit───> draining ──> what is left is cut
                       calls still come     none is let in any more

A stream that is kept open for one request after another carries no work between them: it ends as
soon as the service begins to stop, with all answered that had come, and its caller opens another
elsewhere. Knows nothing of gRPC or Ray: a call is the asyncio task that runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from services.runtime.errors import NotReady

__all__ = ["InFlight", "Lifecycle", "shutting_down"]

_ENDING_S = 2.0  # how long calls that were cut may take to say so

T = TypeVar("T")


def shutting_down() -> NotReady:
    """What a call ends with that a service which stops does not take, or cuts."""
    return NotReady("the service is shutting down", retry_after_s=1.0)


@dataclass(slots=True, eq=False)
class InFlight:
    """One call that runs. `_sending`: its task is within the transport, not within the service."""

    task: asyncio.Task[object]
    takes_requests: bool = True  # while False, `requests` has none
    _cut: bool = False
    _sending: bool = False
    _reader: asyncio.Task[object] | None = None  # which waits for the next request

    async def requests(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """Those of a stream that is kept open. Raises `NotReady` once the service stops."""
        while self.takes_requests:
            reader = self._reader = asyncio.current_task()
            assert reader is not None
            try:
                request = await anext(source)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if self.takes_requests or reader.uncancel():
                    raise
                break
            finally:
                self._reader = None
            yield request
        raise shutting_down()

    def take_no_more(self) -> None:
        """Ends `requests`: now where it waits, else once the one is answered that it gave."""
        if self.takes_requests:
            self.takes_requests = False
            if self._reader is not None:
                self._reader.cancel()

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
        self._leaving = False
        self._draining = False
        self._cut = False

    @property
    def num_in_flight(self) -> int:
        return len(self._calls)

    @property
    def draining(self) -> bool:
        """Whether the service has begun to stop."""
        return self._leaving

    @property
    def cut(self) -> bool:
        """Whether the calls still running have been told to end."""
        return self._cut

    @contextmanager
    def call(self) -> Iterator[InFlight]:
        """Marks the current task as a call in flight. Raises `NotReady` while draining."""
        if self._draining:
            raise shutting_down()
        task = asyncio.current_task()
        assert task is not None
        call = InFlight(task, takes_requests=not self._leaving)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    async def leave(self, limit_s: float) -> None:
        """Stops within `limit_s`, and until then takes calls, as whoever sends them may not know.

        For a service whose calls somebody else counts and waits for.
        """
        self._begin_to_stop()
        await asyncio.sleep(limit_s)
        await self.drain(0.0)

    async def drain(self, limit_s: float) -> int:
        """Refuses new calls, waits up to `limit_s` for the running ones, then cuts the rest.

        Returns how many were cut. A cut call ends with `NotReady`, so that its client may try
        another replica; one whose client does not read ends with its connection.
        """
        self._begin_to_stop()
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

    def _begin_to_stop(self) -> None:
        self._leaving = True
        for call in self._calls:
            call.take_no_more()
