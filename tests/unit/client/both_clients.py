"""`Client` and `AsyncClient` behind one asynchronous face, so that a test holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from orrery import AsyncClient, Client, GenerationResult, StreamEvent


class AnyClient(Protocol):
    """A client of either kind."""

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any: ...
    async def read(self, stream: Any, limit: int) -> list[StreamEvent]: ...
    async def result(self, stream: Any) -> GenerationResult: ...
    async def close_stream(self, stream: Any) -> None: ...
    def stream(self, *args: Any, **kwargs: Any) -> Any: ...
    async def close(self) -> None: ...


class AsyncFace:
    """`AsyncClient` as it is."""

    def __init__(self, target: str, **settings: Any) -> None:
        self.client = AsyncClient(target, **settings)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        bound: Callable[..., Awaitable[Any]] = getattr(self.client, method)
        return await bound(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.stream(*args, **kwargs)

    async def read(self, stream: Any, limit: int) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        while len(events) < limit:
            event = await anext(stream, None)
            if event is None:
                break
            events.append(event)
        return events

    async def result(self, stream: Any) -> GenerationResult:
        whole: GenerationResult = await stream.result()
        return whole

    async def close_stream(self, stream: Any) -> None:
        await stream.aclose()

    async def close(self) -> None:
        await self.client.close()


class SyncFace:
    """`Client` in a thread, because the server of the test runs on this loop."""

    def __init__(self, target: str, **settings: Any) -> None:
        self.client = Client(target, **settings)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.client, method), *args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return self.client.stream(*args, **kwargs)

    async def read(self, stream: Any, limit: int) -> list[StreamEvent]:
        def take() -> list[StreamEvent]:
            events: list[StreamEvent] = []
            while len(events) < limit:
                event = next(stream, None)
                if event is None:
                    break
                events.append(event)
            return events

        return await asyncio.to_thread(take)

    async def result(self, stream: Any) -> GenerationResult:
        return await asyncio.to_thread(stream.result)

    async def close_stream(self, stream: Any) -> None:
        stream.close()

    async def close(self) -> None:
        await asyncio.to_thread(self.client.close)


class Either:
    """A client of either kind, used by awaiting."""

    def __init__(self, kind: str, target: str, **settings: Any) -> None:
        made = Client if kind == "sync" else AsyncClient
        self.client: Any = made(target, **({"timeout_s": 20.0} | settings))
        self._blocking = kind == "sync"

    async def call(self, path: str, *args: Any, **kwargs: Any) -> Any:
        target = self.client
        for name in path.split("."):
            target = getattr(target, name)
        if self._blocking:
            return await asyncio.to_thread(target, *args, **kwargs)
        return await target(*args, **kwargs)

    async def all(self, path: str, *args: Any, **kwargs: Any) -> list[Any]:
        part, name = path.split(".")
        iterable = getattr(getattr(self.client, part), name)(*args, **kwargs)
        if self._blocking:
            return await asyncio.to_thread(list, iterable)
        return [each async for each in iterable]

    async def close(self) -> None:
        await self.call("close")
