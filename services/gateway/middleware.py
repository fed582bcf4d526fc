"""Around every request: its id, its key, its place, its span, one line in the access log, and a
last line of defence.

Plain ASGI, not a `BaseHTTPMiddleware`: that one stands between a response and its client's
disconnect. Knows nothing of routes except which are open to everybody.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import headers
from services.gateway.errors import CLIENT_LEFT, error_response
from services.runtime.auth import Authenticator
from services.runtime.errors import Internal, OrreryError, Overloaded
from services.runtime.tracing import TRACEPARENT, Span, Tracer

__all__ = ["Observe", "ObserveUsage", "RequestGuard", "note_user"]

# Probes have no keys, and the documentation holds no secrets.
_OPEN_PATHS = frozenset({"/health", "/ready", "/version", "/docs", "/redoc", "/openapi.json"})
_ALWAYS_ANSWERED = "/health"
# Their places are their own: whoever has no key takes none from those who have one.
_MAX_OPEN_REQUESTS = 64

# Told the route's template, the status and the seconds of every finished request.
Observe = Callable[[str, int, float], None]
# Told which places, and the share of them that is taken, from 0 to 1.
ObserveUsage = Callable[[str, float], None]

_log = logging.getLogger("orrery.gateway")


def note_user(request: Request, user: str | None) -> None:
    """Puts a hash of the client's end user into the access log: enough to tell users apart."""
    if user:
        request.state.user_hash = hashlib.sha256(user.encode()).hexdigest()[:16]


class RequestGuard:
    """Lets a request in, or answers for it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        max_requests: int,
        observe: Observe,
        observe_usage: ObserveUsage,
        tracer: Tracer,
        sends_request_id: bool,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._places = _Places(max_requests, "requests", observe_usage)
        self._open_places = _Places(_MAX_OPEN_REQUESTS, "open_requests", observe_usage)
        self._observe = observe
        self._tracer = tracer
        self._sends_request_id = sends_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one HTTP request; anything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._sends_request_id)
        try:
            with self._admitted(scope, exchange):
                await self._app(scope, receive, exchange.send)
        except OrreryError as error:
            await exchange.fail(error)
        except Exception as error:  # noqa: BLE001 - the last line: log it, tell nothing of it
            _log.error("request_failed", extra=exchange.log_fields(), exc_info=error)
            await exchange.fail(
                Internal("an internal error occurred; the log has it under the request id")
            )
        finally:
            self._observe(exchange.route, exchange.final_status, exchange.duration_s)
            exchange.end_span()
            _log.info("request", extra=exchange.log_fields())

    @contextmanager
    def _admitted(self, scope: Scope, exchange: _Exchange) -> Iterator[None]:
        request_headers = Headers(scope=scope)
        exchange.request_id = headers.request_id(request_headers) or exchange.request_id
        scope["state"]["request_id"] = exchange.request_id
        if scope["path"] in _OPEN_PATHS:
            taken = (
                self._open_places.taken() if scope["path"] != _ALWAYS_ANSWERED else nullcontext()
            )
            with taken:
                yield
            return
        exchange.begin_span(self._tracer, request_headers.get(TRACEPARENT))
        self._authenticator.check(request_headers.get(headers.AUTHORIZATION))
        with self._places.taken():
            yield


class _Places:
    """For so many requests at a time. Without them, what waits for the services waits here."""

    def __init__(self, num_places: int, name: str, observe: ObserveUsage) -> None:
        self._num_places = num_places
        self._num_taken = 0
        self._name = name
        self._observe = observe

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around a request. Raises `Overloaded` where no place is left for it."""
        if self._num_taken >= self._num_places:
            raise Overloaded(
                f"the gateway has {self._num_places} requests under way, as many as it may",
                retry_after_s=1.0,
            )
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, difference: int) -> None:
        self._num_taken += difference
        self._observe(self._name, self._num_taken / self._num_places)


@dataclass(slots=True)
class _Exchange:
    """One request and what became of it."""

    scope: Scope
    client_send: Send
    sends_request_id: bool
    request_id: str = field(default_factory=headers.new_request_id)
    status: int | None = None  # None: the client left before an answer began
    started_s: float = field(default_factory=time.monotonic)
    span: Span | None = None

    def __post_init__(self) -> None:
        state = self.scope.setdefault("state", {})
        state |= {"request_id": self.request_id, "arrived_s": self.started_s, "traceparent": None}

    def begin_span(self, tracer: Tracer, traceparent: str | None) -> None:
        """What the request does from now on is traced. It gets its name once its route is known."""
        attributes = {"http.request.method": self.scope["method"], "request_id": self.request_id}
        self.span = tracer.start(self.scope["method"], traceparent, attributes)
        self.scope["state"]["traceparent"] = self.span.traceparent

    def end_span(self) -> None:
        """Ends it, where there is one."""
        if self.span is not None:
            failed = self.final_status >= HTTPStatus.INTERNAL_SERVER_ERROR
            name = f"{self.scope['method']} {self.route}"
            self.span.end(str(self.final_status), failed=failed, name=name)

    async def send(self, message: Message) -> None:
        """Passes a message on; the first one tells the status, and may carry the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.sends_request_id:
                header = (headers.REQUEST_ID.encode(), self.request_id.encode())
                message["headers"] = [*message.get("headers", ()), header]
        await self.client_send(message)

    async def fail(self, error: OrreryError) -> None:
        """Answers with an error, unless an answer has begun: then it stays incomplete."""
        if self.status is None:
            await error_response(error)(self.scope, _no_message, self.send)

    @property
    def route(self) -> str:
        """The route's template: a path itself would give metrics a label per client's whim."""
        return getattr(self.scope.get("route"), "path", "unmatched")

    @property
    def final_status(self) -> int:
        """What the request ended with; 499 when the client left before an answer began."""
        return CLIENT_LEFT if self.status is None else self.status

    @property
    def duration_s(self) -> float:
        """Since the request arrived."""
        return time.monotonic() - self.started_s

    def log_fields(self) -> dict[str, Any]:
        """What the access log says. Neither bodies nor keys nor query strings."""
        fields = {
            "request_id": self.request_id,
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": self.final_status,
            "duration_s": round(self.duration_s, 6),
        }
        user_hash = self.scope["state"].get("user_hash")
        return fields if user_hash is None else fields | {"user_hash": user_hash}


async def _no_message() -> Message:
    raise AssertionError("an error response reads nothing")
