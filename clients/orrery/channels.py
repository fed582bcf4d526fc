"""A few channels to one target, used in turn. Knows nothing of what is sent over them.

One HTTP/2 connection carries 1,024 calls at once through the platform's load balancer; a call
beyond that would silently wait in gRPC. Several channels are several connections.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from orrery.methods import Method

__all__ = ["MAX_MESSAGE_BYTES", "ChannelPool", "channel_options"]

MAX_MESSAGE_BYTES = 64 << 20
ChannelT = TypeVar("ChannelT")


def channel_options(target: str) -> list[tuple[str, int]]:
    """Options of every channel to `target`."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Without it all channels of a process to one target share one connection.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC waits 1 s and then up to 120 s between connection attempts: far longer than a
        # restarting load balancer takes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if _is_loopback(target):
        # gRPC obeys `http_proxy` even for 127.0.0.1; no proxy can reach this machine's loopback.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def _is_loopback(target: str) -> bool:
    host = target.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ChannelPool(Generic[ChannelT]):
    """Up to `size` channels, made by `connect` when their turn first comes."""

    def __init__(self, connect: Callable[[], ChannelT], size: int) -> None:
        self._connect = connect
        self._size = size
        self._lanes: list[tuple[ChannelT, dict[str, Any]]] = []
        self._turn = 0
        self._lock = threading.Lock()

    def callable_for(self, method: Method[Any, Any]) -> Any:
        """The gRPC callable of `method` on the channel whose turn it is."""
        with self._lock:
            index = self._turn % self._size
            self._turn += 1
            if index == len(self._lanes):
                self._lanes.append((self._connect(), {}))
            channel, callables = self._lanes[index]
            if method.path not in callables:
                callables[method.path] = _make_callable(channel, method)
            return callables[method.path]

    def drain(self) -> list[ChannelT]:
        """Takes all channels out, for closing."""
        with self._lock:
            channels = [channel for channel, _ in self._lanes]
            self._lanes = []
            self._turn = 0
            return channels


def _make_callable(channel: Any, method: Method[Any, Any]) -> Any:
    requests = "stream" if method.takes_stream else "unary"
    responses = "stream" if method.streams else "unary"
    make = getattr(channel, f"{requests}_{responses}")
    return make(
        method.path, request_serializer=method.serialize, response_deserializer=method.parse
    )
