"""What the calls of every service share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from orrery.errors import OrreryError, ServiceNotFoundError
from orrery.methods import Method
from orrery.requests.pictures import Picture, read_pictures
from orrery.settings import ClientSettings
from orrery.status import FailedCall, is_said_by_server
from orrery.steps import CallContext, Steps, Work, send_with_retries

__all__ = [
    "CallOptions",
    "StreamOpening",
    "absence",
    "after_reading",
    "begin",
    "call",
    "send_to",
    "then",
]

ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")

# How the load balancer or gRPC itself says that there is no such application or service.
_ABSENT_CODES = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What every call may be given. None = the client's default, or a new request id."""

    model: str | None = None
    timeout_s: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class StreamOpening:
    """A stream that has not begun: the id of its call, and the steps to its first message."""

    request_id: str
    steps: Steps[Any]


def begin(settings: ClientSettings, options: CallOptions) -> CallContext:
    """Starts the clock of a call."""
    return CallContext.begin(settings, timeout_s=options.timeout_s, request_id=options.request_id)


def send_to(
    context: CallContext, application: str, method: Method[Any, ResponseT], request: Any
) -> Steps[ResponseT]:
    """One RPC to an application known by its name.

    Raises:
        ServiceNotFoundError: The platform has no such application, or it no such service.
        OrreryError: What the last attempt ended with.
    """
    try:
        return (yield from send_with_retries(context, method, request, application=application))
    except OrreryError as error:
        absent = absence(error, application)
        if absent is None:
            raise
        raise absent from error.__cause__


def absence(error: OrreryError, application: str) -> ServiceNotFoundError | None:
    """What an error becomes that says, not in a service's words, that there is none."""
    cause = error.__cause__
    if not isinstance(cause, grpc.RpcError):
        return None
    failed = cast(FailedCall, cause)
    if is_said_by_server(failed) or failed.code() not in _ABSENT_CODES:
        return None
    where = f"the application {application!r}" if application else "the service asked for"
    return ServiceNotFoundError(
        f"{where} is not served there ({error.message})", request_id=error.request_id
    )


def call(
    settings: ClientSettings,
    application: str,
    method: Method[Any, ResponseT],
    request: Any,
    parse: Callable[[ResponseT], ResultT],
    options: CallOptions,
    *,
    idempotent: bool = True,
) -> Steps[ResultT]:
    """One unary RPC to an application known by its name; its time begins now."""
    context = begin(settings, options)
    if not idempotent:
        context = replace(context, retry=replace(context.retry, idempotent=False))
    return then(send_to(context, application, method, request), parse)


def then(steps: Steps[ResponseT], parse: Callable[[ResponseT], ResultT]) -> Steps[ResultT]:
    """The same steps, with what they give back read by `parse`."""
    return parse((yield from steps))


def after_reading(pictures: Sequence[Picture], steps: Steps[ResultT]) -> Steps[ResultT]:
    """The same steps, once the pictures of their request are in it."""
    if pictures:
        yield Work(partial(read_pictures, pictures))
    return (yield from steps)
