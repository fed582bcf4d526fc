"""Connections to the platform that is put under load, over gRPC and over HTTP."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

from orrery.load import over_grpc
from orrery.load.driver import Transport
from orrery.settings import DEFAULT_TIMEOUT_S

__all__ = ["TRANSPORTS", "Target", "TransportName", "connected"]

TransportName = Literal["grpc", "http"]
TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the platform listens, and how long a request may take. `http_url` None = unknown."""

    grpc: str
    http_url: str | None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S


@asynccontextmanager
async def connected(
    target: Target, names: Sequence[TransportName]
) -> AsyncIterator[list[Transport]]:
    """The transports of these names, open.

    Raises `ValueError` where HTTP is asked for and the target has no URL for it.
    """
    if "http" in names and target.http_url is None:
        raise ValueError("http_url: expected the gateway's URL, got none")
    async with AsyncExitStack() as stack:
        stack.enter_context(_without_long_pauses())
        yield [await _open(target, name, stack) for name in names]


async def _open(target: Target, name: TransportName, stack: AsyncExitStack) -> Transport:
    if name == "grpc":
        client = over_grpc.async_client(target.grpc, target.api_key, target.timeout_s)
        return Transport(name, partial(over_grpc.hear, await stack.enter_async_context(client)))
    from orrery.load import over_http  # here, because httpx takes longer to import than the rest

    assert target.http_url is not None
    http = over_http.async_client(target.http_url, target.api_key, target.timeout_s)
    return Transport(name, partial(over_http.hear, await stack.enter_async_context(http)))


@contextmanager
def _without_long_pauses() -> Iterator[None]:
    """Going through all that is imported takes the garbage collector 0.1 s, in which nothing is
    sent and nothing heard: it leaves that alone."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
