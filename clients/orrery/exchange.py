"""Carries out steps that hold a call which streams both ways: blocking, and awaiting.

Both hand out what the steps emit, one result at a time; nothing is done before the first is asked
for. Knows nothing of which calls there are.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Self

import grpc

from orrery.async_connection import EOF, AsyncConnection, task_is_cancelled
from orrery.connection import Connection
from orrery.effects import (
    DoneWriting,
    Emit,
    ExchangeEffect,
    ExchangeSteps,
    Open,
    Read,
    Take,
    Write,
)
from orrery.errors import CancelledError, OrreryError

__all__ = ["AsyncExchange", "Exchange"]


class Exchange:
    """An iterator over what the steps emit. `value` is what they returned, once it has ended.

    Attributes:
        value: What the steps gave back at their end.
    """

    def __init__(
        self, connection: Connection, steps: ExchangeSteps[Any], source: Iterable[Any] = ()
    ) -> None:
        self.value: Any = None
        self._connection = connection
        self._steps = steps
        self._source = iter(source)
        self._call: Any = None
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended = False
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        if self._closed:
            raise _closed_early()
        try:
            return self._advance()
        except StopIteration as end:
            self.value, self._ended = end.value, True
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another thread."""
        self._closed = True
        self._hang_up()

    def __del__(self) -> None:
        if getattr(self, "_call", None) is not None:
            self._hang_up()  # its thread waits for requests otherwise

    def _advance(self) -> Any:
        outcome: Any = None
        failure: Exception | None = None
        while True:
            effect = self._steps.send(outcome) if failure is None else self._steps.throw(failure)
            outcome = failure = None
            if isinstance(effect, Emit):
                return effect.result
            if isinstance(effect, Take):  # its errors are the caller's own
                outcome = next(self._source, None)
                continue
            try:
                with self._connection.calling():
                    outcome = self._perform(effect)
            except (grpc.RpcError, OrreryError) as error:
                failure = error
            if self._closed:  # by another thread
                raise _closed_early() from failure

    def _perform(self, effect: ExchangeEffect) -> Any:
        if isinstance(effect, Open):
            self._hang_up()
            self._requests = queue.SimpleQueue()
            self._call = self._connection.open_bidi(
                effect.method,
                iter(self._requests.get, None),
                effect.metadata,
                effect.timeout_s,
            )
            return None
        if isinstance(effect, Write):
            return self._requests.put(effect.message)
        if isinstance(effect, DoneWriting):
            return self._requests.put(None)
        if isinstance(effect, Read):
            return next(self._call, None)
        assert not isinstance(effect, Take | Emit)
        return self._connection.perform(effect)

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._requests.put(None)


class AsyncExchange:
    """An async iterator over what the steps emit; `value` as in `Exchange`.

    The source may be an ordinary iterable or an asynchronous one.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        steps: ExchangeSteps[Any],
        source: Iterable[Any] | AsyncIterable[Any] = (),
    ) -> None:
        self.value: Any = None
        self._connection = connection
        self._steps = steps
        self._source = source.__aiter__() if isinstance(source, AsyncIterable) else iter(source)
        self._call: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._ended = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        if self._closed:
            raise _closed_early()
        try:
            return await self._advance()
        except _End as end:
            self.value, self._ended = end.value, True
            await self.aclose()
            raise StopAsyncIteration from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Cancels the call if it has not ended. May be called twice, and from another task."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()

    def __del__(self) -> None:
        # gRPC keeps an unfinished call alive by itself. The collector may run in any thread.
        call, loop = getattr(self, "_call", None), getattr(self, "_loop", None)
        if call is not None and loop is not None and not call.done() and not loop.is_closed():
            loop.call_soon_threadsafe(call.cancel)

    async def _advance(self) -> Any:
        outcome: Any = None
        failure: Exception | None = None
        while True:
            try:
                if failure is None:
                    effect = self._steps.send(outcome)
                else:
                    effect = self._steps.throw(failure)
            except StopIteration as end:  # a coroutine cannot let it through
                raise _End(end.value) from None
            outcome = failure = None
            if isinstance(effect, Emit):
                return effect.result
            if isinstance(effect, Take):  # its errors are the caller's own
                outcome = await self._take()
                continue
            try:
                with self._connection.calling():
                    outcome = await self._perform(effect)
            except asyncio.CancelledError:
                if self._closed and not task_is_cancelled():  # another task closed it
                    raise _closed_early() from None
                raise
            except (grpc.RpcError, OrreryError) as error:
                failure = error
            if self._closed:  # by another task
                raise _closed_early() from failure

    async def _take(self) -> Any:
        if isinstance(self._source, AsyncIterator):
            return await anext(self._source, None)
        return next(self._source, None)

    async def _perform(self, effect: ExchangeEffect) -> Any:
        if isinstance(effect, Open):
            if self._call is not None:
                self._call.cancel()
            self._requests, self._loop = asyncio.Queue(), asyncio.get_running_loop()
            self._call = self._connection.open_bidi(
                effect.method, _Requests(self._requests), effect.metadata, effect.timeout_s
            )
            return None
        if isinstance(effect, Write):
            return self._requests.put_nowait(effect.message)
        if isinstance(effect, DoneWriting):
            return self._requests.put_nowait(None)
        if isinstance(effect, Read):
            message = await self._call.read()
            return None if message is EOF else message
        assert not isinstance(effect, Take | Emit)
        return await self._connection.perform(effect)


def _closed_early() -> CancelledError:
    return CancelledError("the call was closed before its end")


class _End(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Requests:
    """What is in a queue, up to None. No generator, which would have to be closed."""

    def __init__(self, requests: asyncio.Queue[Any]) -> None:
        self._requests = requests

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        request = await self._requests.get()
        if request is None:
            raise StopAsyncIteration
        return request
