"""One generation, event by event: `TextStream` for `Client`, `AsyncTextStream` for `AsyncClient`.

Both open the call when the first event is asked for (with its retries, see `orrery.steps`), and
cancel it when they are left before the end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self, cast

import grpc

from orrery.async_connection import EOF, AsyncConnection, task_is_cancelled
from orrery.calls.generation import StreamOpening
from orrery.connection import Connection
from orrery.errors import CancelledError, ConnectionLostError, OrreryError
from orrery.parsing.generation import StreamAccumulator, parse_event
from orrery.results import GenerationResult, StreamEvent
from orrery.status import FailedCall, to_error

__all__ = ["AsyncTextStream", "TextStream"]


def _cut_short(request_id: str) -> ConnectionLostError:
    return ConnectionLostError(
        "the server ended the stream before the text was complete", request_id=request_id
    )


class TextStream:
    """The events of one generation, as an iterator and a context manager.

    Leaving it before the end cancels the call. Errors are raised by the iteration.

    Attributes:
        request_id: The id of the call.
    """

    def __init__(self, connection: Connection, opening: StreamOpening) -> None:
        self.request_id = opening.request_id
        self._connection = connection
        self._opening: StreamOpening | None = opening
        self._accumulator = StreamAccumulator()
        self._call: Any = None
        self._ended = False
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        if self._ended:
            raise StopIteration
        if self._closed:
            raise self._cancelled()
        try:
            message = self._read()
        except OrreryError as error:
            if self._closed:  # another thread closed the stream
                raise self._cancelled() from error
            self._closed = True
            raise
        if message is None:
            self._end()
            raise StopIteration
        event = parse_event(message)
        self._accumulator.add(event)
        return event

    def result(self) -> GenerationResult:
        """Reads the rest, and returns the whole generation, earlier events included."""
        for _ in self:
            pass
        return self._accumulator.result()

    def close(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another thread."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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
            raise self._cancelled()
        self._call = call

    def _end(self) -> None:
        """The server has ended the stream with status OK, which it must not do half-way."""
        if not self._accumulator.complete:
            self._closed = True
            raise _cut_short(self.request_id)
        self._ended = True

    def _cancelled(self) -> CancelledError:
        return CancelledError("the stream was closed before its end", request_id=self.request_id)


class AsyncTextStream:
    """The events of one generation, as an async iterator and an async context manager.

    Leaving it before the end cancels the call. Errors are raised by the iteration.

    Attributes:
        request_id: The id of the call.
    """

    def __init__(self, connection: AsyncConnection, opening: StreamOpening) -> None:
        self.request_id = opening.request_id
        self._connection = connection
        self._opening: StreamOpening | None = opening
        self._accumulator = StreamAccumulator()
        self._call: Any = None
        self._ended = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._ended:
            raise StopAsyncIteration
        if self._closed:
            raise self._cancelled()
        try:
            message = await self._read()
        except asyncio.CancelledError:
            if self._closed and not task_is_cancelled():  # another task closed the stream
                raise self._cancelled() from None
            raise
        except OrreryError:
            self._closed = True
            raise
        if message is None:
            self._end()
            raise StopAsyncIteration
        event = parse_event(message)
        self._accumulator.add(event)
        return event

    async def result(self) -> GenerationResult:
        """Reads the rest, and returns the whole generation, earlier events included."""
        async for _ in self:
            pass
        return self._accumulator.result()

    async def aclose(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another task."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

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
            raise self._cancelled()
        self._call = call
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        # gRPC keeps an unfinished call alive by itself. The collector may run in any thread.
        call = getattr(self, "_call", None)
        if call is not None and not call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call.cancel)

    def _end(self) -> None:
        """The server has ended the stream with status OK, which it must not do half-way."""
        if not self._accumulator.complete:
            self._closed = True
            raise _cut_short(self.request_id)
        self._ended = True

    def _cancelled(self) -> CancelledError:
        return CancelledError("the stream was closed before its end", request_id=self.request_id)
