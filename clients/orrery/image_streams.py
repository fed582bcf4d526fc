"""Pictures in the making, event by event: progress, previews, each picture, and the end.

`ImageStream` is for `Client`, `AsyncImageStream` for `AsyncClient`.

Both open the call when the first event is asked for, and cancel it when they are left before the
end.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from orrery.async_connection import AsyncConnection
from orrery.calls.common import StreamOpening
from orrery.connection import Connection
from orrery.messages import AsyncMessages, Messages
from orrery.parsing.images import ImageAccumulator
from orrery.results import GeneratedImages, ImageEvent

__all__ = ["AsyncImageStream", "ImageStream"]


class ImageStream:
    """The events of one call for pictures, as an iterator and a context manager.

    Leaving it before the end cancels the call. Errors are raised by the iteration.

    Attributes:
        request_id: The id of the call.
    """

    def __init__(self, connection: Connection, opening: StreamOpening) -> None:
        self.request_id = opening.request_id
        self._accumulator = ImageAccumulator()
        self._messages = Messages(connection, opening, lambda: self._accumulator.complete)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ImageEvent:
        while (message := self._messages.next()) is not None:
            event = self._accumulator.add(message)
            if event is not None:
                return event
        raise StopIteration

    def result(self) -> GeneratedImages:
        """Reads the rest, and returns the whole, earlier pictures included."""
        for _ in self:
            pass
        return self._accumulator.result()

    def close(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another thread."""
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncImageStream:
    """The events of one call for pictures, as an async iterator and an async context manager.

    Leaving it before the end cancels the call. Errors are raised by the iteration.

    Attributes:
        request_id: The id of the call.
    """

    def __init__(self, connection: AsyncConnection, opening: StreamOpening) -> None:
        self.request_id = opening.request_id
        self._accumulator = ImageAccumulator()
        self._messages = AsyncMessages(connection, opening, lambda: self._accumulator.complete)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ImageEvent:
        while (message := await self._messages.next()) is not None:
            event = self._accumulator.add(message)
            if event is not None:
                return event
        raise StopAsyncIteration

    async def result(self) -> GeneratedImages:
        """Reads the rest, and returns the whole, earlier pictures included."""
        async for _ in self:
            pass
        return self._accumulator.result()

    async def aclose(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another task."""
        self._messages.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
