"""An asynchronous server on an event loop of its own thread, for tests of synchronous callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

__all__ = ["in_thread"]

RunningT = TypeVar("RunningT")


@contextmanager
def in_thread(server: AbstractAsyncContextManager[RunningT], name: str) -> Iterator[RunningT]:
    """What `server` gives once it is entered; leaving leaves it. `name`: the thread's."""
    with asyncio.Runner() as runner:
        started: Future[RunningT] = Future()
        stop = asyncio.Event()

        async def serve() -> None:
            try:
                async with server as running:
                    started.set_result(running)
                    await stop.wait()
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)

        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(serve(),), name=name)
        thread.start()
        try:
            yield started.result(timeout=60)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(timeout=60)
