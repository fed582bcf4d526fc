"""One answer that comes in several messages: opening it, reading it, leaving it early.

Both kinds open the call when the first message is asked for (with its retries, see
`orrery.steps`), and cancel it when they are closed before the end. Knows nothing of what the
messages say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc

from orrery.async_connection import EOF, AsyncConnection, task_is_cancelled
from orrery.calls.common import StreamOpening
from orrery.connection import Connection
from orrery.errors import CancelledError, ConnectionLostError, OrreryError
from orrery.status import FailedCall, to_error

__all__ = ["AsyncMessages", "Messages"]


class Messages:
    """The messages of one call, read by blocking.

    `complete` says whether the answer is whole, when the server has ended it with status OK.
    """

    def __init__(
        self, connection: Connection, opening: StreamOpening, complete: Callable[[], bool]
    ) -> None:
        self.request_id = opening.request_id
        self._connection = connection
        self._opening: StreamOpening | None = opening
        self._complete = complete
        self._call: Any = None
        self._ended = False
        self._closed = False

    def next(self) -> Any:
        """The next message; None = the answer is whole. Raises `OrreryError`."""
        if self._ended:
            return None
        if self._closed:
            raise _cancelled(self.request_id)
        try:
            message = self._read()
        except OrreryError as error:
            if self._closed:  # another thread closed the stream
                raise _cancelled(self.request_id) from error
            self._closed = True
            raise
        if message is None:
            self._closed = not self._complete()
            if self._closed:
                raise _cut_short(self.request_id)
            self._ended = True
        return message

    def close(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another thread."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    def _read(self) -> Any:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            return self._connection.run(opening.steps, self._began)
        try:
            with self._connection.calling():
                return next(self._call, None)
        except grpc.RpcError as failure:
            raise to_error(cast(FailedCall, failure), request_id=self.request_id) from failure

    def _began(self, call: Any) -> None:
        if self._closed:  # between two attempts: do not begin another
            call.cancel()
            raise _cancelled(self.request_id)
        self._call = call


class AsyncMessages:
    """The messages of one call, awaited; `complete` as in `Messages`."""

    def __init__(
        self, connection: AsyncConnection, opening: StreamOpening, complete: Callable[[], bool]
    ) -> None:
        self.request_id = opening.request_id
        self._connection = connection
        self._opening: StreamOpening | None = opening
        self._complete = complete
        self._call: Any = None
        self._ended = False
        self._closed = False

    async def next(self) -> Any:
        """The next message; None = the answer is whole. Raises `OrreryError`."""
        if self._ended:
            return None
        if self._closed:
            raise _cancelled(self.request_id)
        try:
            message = await self._read()
        except asyncio.CancelledError:
            if self._closed and not task_is_cancelled():  # another task closed the stream
                raise _cancelled(self.request_id) from None
            raise
        except OrreryError:
            self._closed = True
            raise
        if message is None:
            self._closed = not self._complete()
            if self._closed:
                raise _cut_short(self.request_id)
            self._ended = True
        return message

    def close(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another task."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    async def _read(self) -> Any:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            return await self._connection.run(opening.steps, self._began)
        try:
            with self._connection.calling():
                message = await self._call.read()
        except grpc.RpcError as failure:
            raise to_error(cast(FailedCall, failure), request_id=self.request_id) from failure
        return None if message is EOF else message

    def _began(self, call: Any) -> None:
        if self._closed:  # between two attempts: do not begin another
            call.cancel()
            raise _cancelled(self.request_id)
        self._call = call
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        # gRPC keeps an unfinished call alive by itself. The collector may run in any thread.
        call = getattr(self, "_call", None)
        if call is not None and not call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call.cancel)


def _cut_short(request_id: str) -> ConnectionLostError:
    return ConnectionLostError(
        "the server ended the stream before the answer was complete", request_id=request_id
    )


def _cancelled(request_id: str) -> CancelledError:
    return CancelledError("the stream was closed before its end", request_id=request_id)
