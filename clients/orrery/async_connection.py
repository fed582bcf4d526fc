"""Carries steps out with awaiting gRPC calls. Knows nothing of which calls there are.

Channels belong to the event loop they were made in, so they are made when first needed, in the loop
that runs then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from orrery.channels import ChannelPool, channel_options
from orrery.errors import CancelledError
from orrery.methods import Method
from orrery.settings import ClientSettings
from orrery.steps import Effect, Metadata, Pause, Steps, Work

__all__ = ["EOF", "AsyncConnection", "task_is_cancelled"]

EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it

T = TypeVar("T")


def task_is_cancelled() -> bool:
    """Whether the current task itself is being cancelled, not only the gRPC call it awaits.

    gRPC raises `asyncio.CancelledError` for both.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ignore(call: Any) -> None:
    del call


class AsyncConnection:
    """The channels of one `AsyncClient`, used from one event loop at a time."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._pool = self._new_pool()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, steps: Steps[T], on_call: Callable[[Any], None] = _ignore) -> T:
        """Takes the steps and returns their value.

        `on_call` is given every streaming call as soon as it exists; it may raise to give up.
        Cancelling the task cancels the call that is under way.

        Raises:
            OrreryError: What the steps end with.
            RuntimeError: The connection is closed, or in use by another event loop.
        """
        try:
            effect = next(steps)
            while True:
                try:
                    with self.calling():
                        value = await self.perform(effect, on_call)
                except grpc.RpcError as failure:
                    effect = steps.throw(failure)
                else:
                    effect = steps.send(value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def open_bidi(
        self,
        method: Method[Any, Any],
        requests: AsyncIterable[Any],
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Any:
        """A call that streams both ways; `read()` it until `EOF`, then or before `cancel()` it.

        Raises:
            RuntimeError: The connection is closed, or in use by another event loop.
        """
        if self._closed:
            raise RuntimeError("the client is closed")
        rpc = self._current_pool().callable_for(method)
        return rpc(requests, timeout=timeout_s, metadata=metadata)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around an RPC: one that `close` ended raises `orrery.errors.CancelledError`."""
        try:
            yield
        except (grpc.RpcError, asyncio.CancelledError) as failure:
            if self._closed and not task_is_cancelled():
                raise CancelledError("the client was closed during the call") from failure
            raise

    async def close(self) -> None:
        """Ends all calls and closes all channels. May be called twice."""
        self._closed = True
        for channel in self._pool.drain():
            await channel.close(None)

    async def perform(self, effect: Effect, on_call: Callable[[Any], None] = _ignore) -> Any:
        """Takes one step. Raises `grpc.RpcError`; `run` and `orrery.exchange` deal with it."""
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Work):
            return await asyncio.to_thread(effect.function)
        if self._closed:
            raise RuntimeError("the client is closed")
        rpc = self._current_pool().callable_for(effect.method)
        call = rpc(effect.request, timeout=effect.timeout_s, metadata=effect.metadata)
        if not effect.method.streams:
            return await call
        on_call(call)
        message = await call.read()
        return None if message is EOF else message

    def _current_pool(self) -> ChannelPool[grpc.aio.Channel]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("an AsyncClient serves one event loop; make one for each")
            self._pool = self._new_pool()
            self._loop = loop
        return self._pool

    def _new_pool(self) -> ChannelPool[grpc.aio.Channel]:
        return ChannelPool(self._connect, self._settings.num_channels)

    def _connect(self) -> grpc.aio.Channel:
        target, credentials = self._settings.target, self._settings.credentials
        options = channel_options(target)
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)
