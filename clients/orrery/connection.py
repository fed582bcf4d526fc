"""Carries steps out with blocking gRPC calls. Knows nothing of which calls there are.

Channels are made when first needed, and made anew in a forked child: gRPC's do not survive a fork.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from orrery.channels import ChannelPool, channel_options
from orrery.errors import CancelledError
from orrery.methods import Method
from orrery.settings import ClientSettings
from orrery.steps import Effect, Metadata, Pause, Steps, Work

__all__ = ["Connection"]

T = TypeVar("T")


def _ignore(call: Any) -> None:
    del call


class Connection:
    """The channels of one `Client`. Thread-safe."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._pool = self._new_pool()
        self._pid = os.getpid()
        self._closed = False

    def run(self, steps: Steps[T], on_call: Callable[[Any], None] = _ignore) -> T:
        """Takes the steps and returns their value.

        `on_call` is given every streaming call as soon as it exists; it may raise to give up.

        Raises:
            OrreryError: What the steps end with.
            RuntimeError: The connection is closed.
        """
        try:
            effect = next(steps)
            while True:
                try:
                    with self.calling():
                        value = self.perform(effect, on_call)
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
        requests: Iterator[Any],
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Any:
        """A call that streams both ways, an iterator of its answers. `cancel()` ends it.

        gRPC takes the requests in a thread of its own.

        Raises:
            RuntimeError: The connection is closed.
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
        except grpc.RpcError as failure:
            if self._closed:
                raise CancelledError("the client was closed during the call") from failure
            raise

    def close(self) -> None:
        """Ends all calls and closes all channels. May be called twice."""
        self._closed = True
        for channel in self._pool.drain():
            channel.close()

    def perform(self, effect: Effect, on_call: Callable[[Any], None] = _ignore) -> Any:
        """Takes one step. Raises `grpc.RpcError`; `run` and `orrery.exchange` deal with it."""
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Work):
            return effect.function()
        if self._closed:
            raise RuntimeError("the client is closed")
        rpc = self._current_pool().callable_for(effect.method)
        if not effect.method.streams:
            return rpc(effect.request, timeout=effect.timeout_s, metadata=effect.metadata)
        call = rpc(effect.request, timeout=effect.timeout_s, metadata=effect.metadata)
        on_call(call)
        return next(call, None)

    def _current_pool(self) -> ChannelPool[grpc.Channel]:
        if self._pid != os.getpid():
            self._pool = self._new_pool()
            self._pid = os.getpid()
        return self._pool

    def _new_pool(self) -> ChannelPool[grpc.Channel]:
        return ChannelPool(self._connect, self._settings.num_channels)

    def _connect(self) -> grpc.Channel:
        target, credentials = self._settings.target, self._settings.credentials
        options = channel_options(target)
        if credentials is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, credentials, options=options)
