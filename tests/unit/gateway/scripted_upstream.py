"""An upstream that answers from a script and remembers what it was asked.

    upstream = ScriptedUpstream({"Search": retrieval_pb2.SearchResponse()})

Keys are the RPCs' names. A value is an answer, an error to raise, a function of the request, or for
a stream a list of these.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any

from orrery.methods import Method
from services.runtime.errors import OrreryError
from services.runtime.peer import Caller


class ScriptedUpstream:
    """A `services.gateway.upstream.Upstream`. `asked`: (application, RPC, request), in order."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.asked: list[tuple[str, str, Any]] = []
        self.num_open_streams = 0
        self.streams_closed = asyncio.Event()

    def requests(self, rpc: str) -> list[Any]:
        """The requests that one RPC got."""
        return [request for _, name, request in self.asked if name == rpc]

    async def unary(
        self, application: str, method: Method[Any, Any], request: Any, caller: Caller
    ) -> Any:
        return await self._answer(self._script(application, method, request), request)

    async def server_stream(
        self, application: str, method: Method[Any, Any], request: Any, caller: Caller
    ) -> AsyncGenerator[Any, None]:
        self.num_open_streams += 1
        try:
            for entry in self._script(application, method, request):
                yield await self._answer(entry, request)
        finally:
            self.num_open_streams -= 1
            if self.num_open_streams == 0:
                self.streams_closed.set()

    async def bidi_stream(
        self,
        application: str,
        method: Method[Any, Any],
        requests: AsyncIterable[Any],
        caller: Caller,
    ) -> AsyncGenerator[Any, None]:
        async for request in requests:
            yield await self._answer(self._script(application, method, request), request)

    async def close(self) -> None:
        return

    def _script(self, application: str, method: Method[Any, Any], request: Any) -> Any:
        rpc = method.path.rpartition("/")[2]
        self.asked.append((application, rpc, request))
        return self.answers[rpc]

    async def _answer(self, entry: Any, request: Any) -> Any:
        if isinstance(entry, OrreryError):
            raise entry
        if callable(entry):
            entry = entry(request)
        return await entry if inspect.isawaitable(entry) else entry
