"""Wraps every RPC handler: request id, authentication, deadline, error status, drain.

A servicer writes `async def Score(self, request, call)` and decorates it with `@unary`,
`@server_stream` or `@bidi_stream`; what the transport calls is `Score(request, grpc_context)`. The
same handler runs under a plain `grpc.aio` server and inside Ray Serve, whose context is a copy made
when the call arrived: only `invocation_metadata`, `set_code`, `set_details` and
`set_trailing_metadata` work on both, and trailing metadata survives only when the handler returns
instead of raising. So a failed call sets its status and returns. Knows nothing of any service's
domain and nothing of Ray.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

import grpc

from services.runtime.auth import Authenticator
from services.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    OrreryError,
    kind_of,
    to_status,
)
from services.runtime.lifecycle import InFlight, Lifecycle, shutting_down
from services.runtime.tracing import PASSING, TRACEPARENT, Span, Tracer

__all__ = [
    "Call",
    "MalformedRequest",
    "RpcPolicy",
    "ServicerContext",
    "bidi_stream",
    "no_translation",
    "server_stream",
    "unary",
]

REQUEST_ID_HEADER = "x-request-id"
TIMEOUT_HEADER = "x-timeout-ms"
AUTHORIZATION_HEADER = "authorization"
STATUS_DETAILS_TRAILER = "grpc-status-details-bin"

# Of the service, not of who called it: what a span is marked as failed for.
_OWN_FAILURES = frozenset(
    {
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)

_LOG = logging.getLogger("orrery.rpc")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_TIMEOUT_MS = re.compile(r"[0-9]{1,12}")


class ServicerContext(Protocol):
    """What `grpc.aio.ServicerContext` and Serve's copy of it have in common."""

    def invocation_metadata(self) -> Any: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC as a servicer sees it. `arrival_s` and `deadline_s` are on `time.monotonic`."""

    method: str
    request_id: str
    arrival_s: float
    deadline_s: float | None
    # What the caller proved itself with; calls made on its behalf carry it on.
    authorization: str | None = field(default=None, repr=False)
    traceparent: str | None = None  # of its span; calls made on its behalf are in the same trace

    def left_s(self, default_s: float) -> float:
        """Seconds until the deadline, or `default_s` where there is none. May be negative."""
        return default_s if self.deadline_s is None else self.deadline_s - time.monotonic()

    @property
    def total_ns(self) -> int:
        """Nanoseconds since the call arrived."""
        return int((time.monotonic() - self.arrival_s) * 1e9)


class MalformedRequest:
    """Stands where a request would be whose bytes are no message of its type."""


def no_translation(_: Exception) -> OrreryError | None:
    """Of a domain without exceptions of its own."""
    return None


def _unobserved(_method: str, _status: str, _duration_s: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class RpcPolicy:
    """What the calls of one servicer go through.

    `translate` turns the domain's exceptions into the taxonomy (None: not one of its own, hence
    `Internal`); `observe` is told method, gRPC status name and seconds of every finished call;
    `tracer` begins a span for each.
    """

    authenticator: Authenticator = field(default_factory=Authenticator)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    translate: Callable[[Exception], OrreryError | None] = no_translation
    observe: Callable[[str, str, float], None] = _unobserved
    tracer: Tracer = PASSING

    def taxonomic(self, exc: Exception, method: str, request_id: str) -> OrreryError:
        """The taxonomy's error for any exception. What nobody foresaw is logged, not told."""
        error = exc if isinstance(exc, OrreryError) else self.translate(exc)
        if error is None:
            details = {"method": method, "request_id": request_id}
            _LOG.error("rpc_failed", extra=details, exc_info=exc)
            error = Internal("an internal error occurred; the log has it under the request id")
        error.request_id = request_id
        return error


class _Servicer(Protocol):
    @property
    def rpc(self) -> RpcPolicy: ...


S = TypeVar("S", bound=_Servicer)
Req = TypeVar("Req")
Resp = TypeVar("Resp")


def unary(
    response_type: type[Resp], *, authenticated: bool = True
) -> Callable[
    [Callable[[S, Req, Call], Awaitable[Resp]]],
    Callable[[S, Req, ServicerContext], Awaitable[Resp]],
]:
    """Decorates a unary RPC. A failed call answers with its status (and an unread message)."""

    def decorate(
        method: Callable[[S, Req, Call], Awaitable[Resp]],
    ) -> Callable[[S, Req, ServicerContext], Awaitable[Resp]]:
        # Serve looks for a parameter of exactly this name, so the wrapped signature is not copied.
        async def handler(self: S, request: Req, grpc_context: ServicerContext) -> Resp:
            with _Attempt(self.rpc, method.__name__, grpc_context) as attempt:
                return await method(self, request, attempt.open(request, authenticated))
            return response_type()

        return _named_as(handler, method)

    return decorate


def server_stream(
    *, authenticated: bool = True
) -> Callable[
    [Callable[[S, Req, Call], AsyncGenerator[Resp, None]]],
    Callable[[S, Req, ServicerContext], AsyncIterator[Resp]],
]:
    """Decorates a server-streaming RPC: an async generator. Leaving it closes the generator."""

    def decorate(
        method: Callable[[S, Req, Call], AsyncGenerator[Resp, None]],
    ) -> Callable[[S, Req, ServicerContext], AsyncIterator[Resp]]:
        async def handler(
            self: S, request: Req, grpc_context: ServicerContext
        ) -> AsyncIterator[Resp]:
            with _Attempt(self.rpc, method.__name__, grpc_context) as attempt:
                call = attempt.open(request, authenticated)
                async with aclosing(method(self, request, call)) as messages:
                    async for message in messages:
                        with attempt.sending():
                            yield message

        return _named_as(handler, method)

    return decorate


def bidi_stream(
    *, authenticated: bool = True, kept_open: bool = False
) -> Callable[
    [Callable[[S, AsyncIterator[Req], Call], AsyncGenerator[Resp, None]]],
    Callable[[S, AsyncIterator[Req], ServicerContext], AsyncIterator[Resp]],
]:
    """Decorates an RPC that streams both ways. Its method is given the messages as they come.

    `kept_open`: each message is a request of its own, and the stream has no end of its own. When
    the service begins to stop, those that have come are answered, and the stream ends `NotReady`.
    """

    def decorate(
        method: Callable[[S, AsyncIterator[Req], Call], AsyncGenerator[Resp, None]],
    ) -> Callable[[S, AsyncIterator[Req], ServicerContext], AsyncIterator[Resp]]:
        async def handler(
            self: S, requests: AsyncIterator[Req], grpc_context: ServicerContext
        ) -> AsyncIterator[Resp]:
            with _Attempt(self.rpc, method.__name__, grpc_context) as attempt:
                call = attempt.open(None, authenticated)
                taken = attempt.requests(requests) if kept_open else requests
                async with aclosing(method(self, _well_formed(taken), call)) as messages:
                    async for message in messages:
                        with attempt.sending():
                            yield message

        return _named_as(handler, method)

    return decorate


async def _well_formed(requests: AsyncIterator[Req]) -> AsyncIterator[Req]:
    """The messages of a stream. Raises `InvalidRequest` at the first that is none."""
    async for request in requests:
        _refuse_malformed(request)
        yield request


def _refuse_malformed(request: object) -> None:
    if isinstance(request, MalformedRequest):
        raise InvalidRequest("the request is no valid message; its texts must be UTF-8")


F = TypeVar("F", bound=Callable[..., object])


def _named_as(handler: F, method: Callable[..., object]) -> F:
    handler.__name__ = method.__name__
    handler.__qualname__ = method.__qualname__
    handler.__doc__ = method.__doc__
    return handler


class _Attempt:
    """One call from arrival to status. As a context manager it turns errors into the status."""

    def __init__(self, policy: RpcPolicy, method: str, context: ServicerContext) -> None:
        self._policy = policy
        self._method = method
        self._context = context
        self._arrival_s = time.monotonic()
        self._request_id = uuid.uuid4().hex
        self._running = ExitStack()
        self._in_flight: InFlight | None = None
        self._span: Span | None = None

    def __enter__(self) -> _Attempt:
        return self

    def open(self, request: object, authenticated: bool) -> Call:
        """Reads id, key and deadline. Raises what refuses the call."""
        metadata = _metadata(self._context)
        self._request_id = _request_id(metadata.get(REQUEST_ID_HEADER), self._request_id)
        self._span = self._policy.tracer.start(
            self._method,
            metadata.get(TRACEPARENT),
            {"rpc.system": "grpc", "rpc.method": self._method, "request_id": self._request_id},
        )
        if authenticated:
            self._policy.authenticator.check(metadata.get(AUTHORIZATION_HEADER))
        self._in_flight = self._running.enter_context(self._policy.lifecycle.call())
        _refuse_malformed(request)
        deadline_s = _deadline_s(metadata.get(TIMEOUT_HEADER), self._context, self._arrival_s)
        if deadline_s is not None and deadline_s <= time.monotonic():
            raise DeadlineExceeded("the deadline had passed when the call arrived")
        return Call(
            self._method,
            self._request_id,
            self._arrival_s,
            deadline_s,
            authorization=metadata.get(AUTHORIZATION_HEADER),
            traceparent=self._span.traceparent,
        )

    def requests(self, source: AsyncIterator[Req]) -> AsyncIterator[Req]:
        """The messages of an open call. Raises `NotReady` when the service begins to stop."""
        assert self._in_flight is not None
        return self._in_flight.requests(source)

    def sending(self) -> AbstractContextManager[None]:
        """Around handing a message of an open call to the transport."""
        assert self._in_flight is not None
        return self._in_flight.sending()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._running.close()
        if exc is None:
            self._finish(grpc.StatusCode.OK, [(REQUEST_ID_HEADER, self._request_id)])
            return False
        if isinstance(exc, asyncio.CancelledError) and self._policy.lifecycle.cut:
            # Our own shutdown cut this call, not its client: it may be tried elsewhere.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            exc = shutting_down()
        if not isinstance(exc, Exception):  # cancelled by the client, or the generator was closed
            self._observe(grpc.StatusCode.CANCELLED)
            return False
        self._fail(self._policy.taxonomic(exc, self._method, self._request_id))
        return True

    def _fail(self, error: OrreryError) -> None:
        status = to_status(error)
        code = kind_of(error).grpc_status
        self._context.set_code(code)
        self._context.set_details(status.message)
        self._finish(
            code,
            [
                (REQUEST_ID_HEADER, self._request_id),
                (STATUS_DETAILS_TRAILER, status.SerializeToString()),
            ],
        )

    def _finish(self, code: grpc.StatusCode, trailers: Sequence[tuple[str, str | bytes]]) -> None:
        # A list: Serve's context concatenates it with its own.
        self._context.set_trailing_metadata(list(trailers))
        self._observe(code)

    def _observe(self, code: grpc.StatusCode) -> None:
        duration_s = time.monotonic() - self._arrival_s
        self._policy.observe(self._method, code.name, duration_s)
        if self._span is not None:
            self._span.end(code.name, failed=code in _OWN_FAILURES)
        details = {
            "method": self._method,
            "status": code.name,
            "request_id": self._request_id,
            "duration_s": duration_s,
        }
        _LOG.debug("rpc", extra=details)


def _metadata(context: ServicerContext) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _request_id(given: str | None, made: str) -> str:
    if given is None:
        return made
    if not _REQUEST_ID.fullmatch(given):
        raise InvalidRequest(
            "x-request-id: expected 1 to 128 letters, digits or '._:-'", field=REQUEST_ID_HEADER
        )
    return given


def _deadline_s(timeout_ms: str | None, context: ServicerContext, now_s: float) -> float | None:
    """The nearer of the client's own header and what the transport knows, if either is known."""
    deadlines = []
    if timeout_ms is not None:
        if not _TIMEOUT_MS.fullmatch(timeout_ms):
            raise InvalidRequest(
                "x-timeout-ms: expected a whole number of milliseconds", field=TIMEOUT_HEADER
            )
        deadlines.append(now_s + int(timeout_ms) / 1000)
    time_remaining = getattr(context, "time_remaining", None)  # Serve's copy does not have it
    left_s = time_remaining() if time_remaining is not None else None
    if left_s is not None:
        deadlines.append(now_s + left_s)
    return min(deadlines, default=None)
