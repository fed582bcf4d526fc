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
