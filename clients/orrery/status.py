"""From a gRPC status to the exception tree.

The server's own words win: a `google.rpc.ErrorInfo` in the status details names the reason.
Without one the status comes from gRPC itself or from the load balancer in between, and its code and
text are all there is. This module performs no calls and knows nothing of retries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from orrery.errors import (
    ERRORS_BY_REASON,
    AuthenticationError,
    ConnectionLostError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    ModelNotFoundError,
    OrreryError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["FailedCall", "is_said_by_server", "to_error"]

_ERROR_DOMAIN = "orrery"
_DETAILS_KEY = "grpc-status-details-bin"

_BY_CODE: dict[grpc.StatusCode, type[OrreryError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    # The client asked for no cancel (a local one never comes here): HAProxy resets the streams of
    # a replica that died, and gRPC reads RST_STREAM(CANCEL) as CANCELLED.
    grpc.StatusCode.CANCELLED: ConnectionLostError,
}

# What gRPC core says, under several codes, when the peer vanishes in the middle of a call.
_LOST_CONNECTION = (
    "RST_STREAM",
    "Socket closed",
    "Connection reset",
    "Stream removed",
    "GOAWAY",
    "Broken pipe",
    # grpc.aio, where the call ended while a request of its stream was being sent.
    "Internal error from Core",
    # Serve's HAProxy where it has no server for the call, or lost it: no gRPC server answers so.
    "Received http2 header with status: 500",
)
_LOST_CONNECTION_CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)
_MESSAGE_TOO_LARGE = "larger than max"


class FailedCall(Protocol):
    """What `grpc.RpcError` and `grpc.aio.AioRpcError` both offer."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def to_error(call: FailedCall, *, request_id: str) -> OrreryError:
    """The exception for a call that ended with a status other than OK.

    A cancel that the caller asked for must not be passed here: CANCELLED is read as a lost server.
    """
    info = _error_info(call)
    if info is None:
        return _without_error_info(call, request_id)
    by_code = _BY_CODE.get(call.code(), InternalError)
    error = ERRORS_BY_REASON.get(info.reason, by_code)
    return error(
        call.details() or info.reason,
        reason=info.reason,
        field=info.metadata.get("field") or None,
        request_id=info.metadata.get("request_id") or request_id,
        retry_after_s=_seconds(info.metadata.get("retry_after_s")),
        stage=info.metadata.get("stage") or None,
    )


def is_said_by_server(call: FailedCall) -> bool:
    """Whether a service said so; if not, the status comes from gRPC or the load balancer."""
    return _error_info(call) is not None


def _lost_connection(call: FailedCall) -> bool:
    """Whether the status says that the peer went away in the middle of the call."""
    details = call.details() or ""
    return call.code() in _LOST_CONNECTION_CODES and any(
        sign in details for sign in _LOST_CONNECTION
    )


def _without_error_info(call: FailedCall, request_id: str) -> OrreryError:
    code, details = call.code(), call.details() or ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _MESSAGE_TOO_LARGE in details:
        return InvalidRequestError(f"message too large: {details}", request_id=request_id)
    if _lost_connection(call) or code is grpc.StatusCode.CANCELLED:
        message = f"the server went away during the call ({details or code.name})"
        # Where there are several replicas, another answers at once.
        return ConnectionLostError(message, request_id=request_id, retry_after_s=0.0)
    error = _BY_CODE.get(code, InternalError)
    return error(details or code.name, request_id=request_id)


def _error_info(call: FailedCall) -> error_details_pb2.ErrorInfo | None:
    """The `ErrorInfo` of this platform in the status details, if there is one."""
    for key, value in call.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            return None  # somebody else's details: the code and the text remain
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == _ERROR_DOMAIN:
                return info
    return None


def _seconds(text: str | None) -> float | None:
    """A number of seconds sent as text; None when absent or not a number."""
    try:
        seconds = float(text or "nan")
    except ValueError:
        return None
    return None if math.isnan(seconds) else max(0.0, seconds)
