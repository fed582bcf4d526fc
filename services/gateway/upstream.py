"""The services behind the gateway, as the rest of it sees them. Knows nothing of HTTP.

`services.runtime.peer.Peer` is the real `Upstream`; `app.py` injects it. Every method raises the
taxonomy's errors, and cancelling it cancels the call it made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from orrery.methods import Method
from services.gateway.field_names import as_client_wrote
from services.runtime.errors import OrreryError, ServiceNotFound
from services.runtime.peer import Caller, error_of_item

__all__ = ["Caller", "Service", "Upstream", "error_of_item"]

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class Upstream(Protocol):
    """Calls by method; `application` chooses the service."""

    async def unary(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
    ) -> ResponseT:
        """One answer."""

    def server_stream(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
    ) -> AsyncGenerator[ResponseT, None]:
        """Answers as they come. Closing it cancels the call."""

    def bidi_stream(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        requests: AsyncIterable[RequestT],
        caller: Caller,
    ) -> AsyncGenerator[ResponseT, None]:
        """Answers as they come while requests are sent. Closing it cancels the call."""

    async def close(self) -> None:
        """Ends all calls."""


@dataclass(frozen=True, slots=True)
class Service:
    """One application of the platform, which a gateway may be configured without.

    Every method raises `ServiceNotFound` where `application` is empty. `names` says what the
    client called a field that the service calls otherwise.
    """

    kind: str
    application: str
    upstream: Upstream

    async def call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
        names: Mapping[str, str] = _NO_NAMES,
    ) -> ResponseT:
        """One answer."""
        try:
            return await self.upstream.unary(self._found(), method, request, caller)
        except OrreryError as error:
            raise as_client_wrote(error, names) from error.__cause__

    async def stream(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
        names: Mapping[str, str] = _NO_NAMES,
    ) -> AsyncGenerator[ResponseT, None]:
        """Answers as they come."""
        try:
            answers = self.upstream.server_stream(self._found(), method, request, caller)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        except OrreryError as error:
            raise as_client_wrote(error, names) from error.__cause__

    async def exchange(
        self,
        method: Method[RequestT, ResponseT],
        requests: AsyncIterable[RequestT],
        caller: Caller,
        names: Mapping[str, str] = _NO_NAMES,
    ) -> list[ResponseT]:
        """All answers to a stream of requests."""
        try:
            answers = self.upstream.bidi_stream(self._found(), method, requests, caller)
            async with aclosing(answers):
                return [answer async for answer in answers]
        except OrreryError as error:
            raise as_client_wrote(error, names) from error.__cause__

    def _found(self) -> str:
        if not self.application:
            raise ServiceNotFound(f"this gateway is configured without a {self.kind} service")
        return self.application
