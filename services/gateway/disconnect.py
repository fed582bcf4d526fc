"""Ties work to the client that waits for it: when the client goes away, the work is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["WhileConnected"]


class WhileConnected(Response):
    """A response that `work` sends itself, as ASGI messages.

    `work` is cancelled when the client disconnects: while a request waits in a queue as well as
    between two tokens. An exception that it raises before its first message becomes the app's
    error response.
    """

    def __init__(self, work: Callable[[Send], Awaitable[None]]) -> None:
        self._work = work
        self.background = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response; returns early when nobody is left to read it."""
        worker = asyncio.ensure_future(self._work(send))
        watcher = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            worker.cancel()  # does nothing to one that is done
            await asyncio.wait({worker, watcher})
        if not worker.cancelled():
            worker.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
