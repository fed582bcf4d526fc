"""What a request's headers say: its id, its key, its deadline. Knows nothing of bodies."""

from __future__ import annotations

import re
import uuid
from typing import Protocol

from starlette.datastructures import Headers

from services.gateway.config import GatewayConfig
from services.gateway.upstream import Caller
from services.runtime.errors import InvalidRequest

__all__ = [
    "AUTHORIZATION",
    "REQUEST_ID",
    "TIMEOUT",
    "Arrival",
    "caller",
    "new_request_id",
    "request_id",
]

REQUEST_ID = "x-request-id"
TIMEOUT = "x-timeout-ms"
AUTHORIZATION = "authorization"

# What the services accept; ten characters are left for the number of a prompt.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,118}")
_TIMEOUT_MS = re.compile(r"[0-9]{1,9}")
# A key as gRPC metadata can carry it; any other is no key of ours.
_BEARER = re.compile(r"[Bb]earer ([!-~]{1,4096})")


class Arrival(Protocol):
    """What `RequestGuard` noted of a request: `request.state`.

    The time runs from `arrived_s`, on `time.monotonic`: reading the body is part of it.
    """

    request_id: str
    arrived_s: float
    traceparent: str | None


def new_request_id() -> str:
    """An id for a request that brought none."""
    return uuid.uuid4().hex


def request_id(headers: Headers) -> str | None:
    """The id that the client chose. Raises `InvalidRequest` when it cannot be one."""
    given = headers.get(REQUEST_ID)
    if given is not None and not _REQUEST_ID.fullmatch(given):
        raise InvalidRequest(
            "x-request-id: expected 1 to 118 letters, digits or '._:-'", field=REQUEST_ID
        )
    return given


def caller(headers: Headers, arrival: Arrival, config: GatewayConfig) -> Caller:
    """What the calls to the services carry. Raises `InvalidRequest` for a bad deadline."""
    bearer = _BEARER.fullmatch(headers.get(AUTHORIZATION, ""))
    return Caller(
        request_id=arrival.request_id,
        api_key=None if bearer is None else bearer[1],
        deadline_s=arrival.arrived_s + _timeout_s(headers, config),
        traceparent=arrival.traceparent,
    )


def _timeout_s(headers: Headers, config: GatewayConfig) -> float:
    given = headers.get(TIMEOUT)
    if given is None:
        return config.default_timeout_s
    longest_ms = int(config.max_timeout_s * 1000)
    if not _TIMEOUT_MS.fullmatch(given) or not 1 <= int(given) <= longest_ms:
        raise InvalidRequest(
            f"x-timeout-ms: expected a whole number of milliseconds, 1 to {longest_ms}",
            field=TIMEOUT,
        )
    return int(given) / 1000
