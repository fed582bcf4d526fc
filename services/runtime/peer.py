"""Calls from one service to another, through the `orrery` client's connection.

Messages stay protobuf and errors come as the taxonomy's, as the other service meant them. Every
call carries its caller's request id, key and what is left of its time; cancelling it cancels the
call it made. Knows no service's messages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from orrery.async_connection import EOF, AsyncConnection
from orrery.errors import (
    CancelledError,
    DeadlineExceededError,
    ModelNotFoundError,
    UnavailableError,
)
from orrery.errors import OrreryError as ClientError
from orrery.methods import Method
from orrery.retry import Deadline, RetryPolicy
from orrery.settings import ClientSettings
from orrery.status import FailedCall, is_said_by_server, to_error
from orrery.steps import CallContext, send_with_retries
from services.runtime.errors import (
    ERROR_TABLE,
    DeadlineExceeded,
    DependencyDown,
    Internal,
    OrreryError,
)
from services.runtime.health import READINESS
from services.runtime.lifecycle import shutting_down
from services.runtime.rpc import Call

__all__ = ["Caller", "Peer", "check_ready", "error_of_item"]

_BY_REASON = MappingProxyType({kind.reason: error for error, kind in ERROR_TABLE.items()})
_BEARER = "bearer "
_CHECK_HEALTH: Method[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = Method(
    "/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse.FromString
)
_REPLACED_S = 1.0  # when to try again where a replica was lost: another serves, or soon will

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT")
_log = logging.getLogger("orrery.peer")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made, and until when: what travels beside every request.

    `deadline_s` is on `time.monotonic`.
    """

    request_id: str
    api_key: str | None = field(repr=False)
    deadline_s: float
    traceparent: str | None = None

    @classmethod
    def of(cls, call: Call, default_timeout_s: float) -> Self:
        """The caller of an RPC; one without a deadline is given `default_timeout_s`."""
        header = call.authorization or ""
        bearer = header[: len(_BEARER)].lower() == _BEARER
        deadline_s = call.deadline_s
        return cls(
            request_id=call.request_id,
            api_key=header[len(_BEARER) :].strip() if bearer else None,
            deadline_s=call.arrival_s + default_timeout_s if deadline_s is None else deadline_s,
            traceparent=call.traceparent,
        )

    def left_s(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self.deadline_s - time.monotonic()

    def within_s(self, limit_s: float) -> Caller:
        """The same caller with at most so many seconds left."""
        return replace(self, deadline_s=min(self.deadline_s, time.monotonic() + limit_s))


class Peer:
    """The services behind one gRPC target, over a few HTTP/2 connections."""

    def __init__(self, target: str, *, num_channels: int = 2, max_retries: int = 2) -> None:
        self._connection = AsyncConnection(
            ClientSettings(target=target, num_channels=num_channels, applications=())
        )
        # A server that says when to come back is not waited for here: the caller is told.
        self._retry = RetryPolicy(max_retries=max_retries, max_retry_after_s=0.0)
        self._closed = False

    async def unary(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
    ) -> ResponseT:
        """One answer. Raises `OrreryError`."""
        steps = send_with_retries(self._context(caller), method, request, application=application)
        try:
            return await self._connection.run(steps)
        except ClientError as error:
            raise _taxonomic(error, application, error.__cause__) from error

    async def server_stream(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
    ) -> AsyncGenerator[ResponseT, None]:
        """Answers as they come; nothing is tried again once the first is there.

        Closing it cancels the call. Raises `OrreryError`.
        """
        calls: list[Any] = []
        try:
            steps = send_with_retries(
                self._context(caller), method, request, application=application
            )
            message = await self._connection.run(steps, calls.append)
            while message is not None:
                yield message
                with self._connection.calling():
                    message = await calls[-1].read()
                if message is EOF:
                    return
        except grpc.RpcError as failure:
            error = to_error(cast(FailedCall, failure), request_id=caller.request_id)
            raise _taxonomic(error, application, failure) from failure
        except ClientError as error:
            raise _taxonomic(error, application, error.__cause__) from error
        finally:
            for call in calls:
                call.cancel()  # does nothing to one that has ended

    async def bidi_stream(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        requests: AsyncIterable[RequestT],
        caller: Caller,
    ) -> AsyncGenerator[ResponseT, None]:
        """Answers as they come while requests are sent as they come; nothing is tried again.

        Closing it cancels the call. Raises `OrreryError`.
        """
        context = self._context(caller)
        timeout_s = context.deadline.grpc_timeout()
        metadata = context.metadata(application, timeout_s)
        call = self._connection.open_bidi(method, requests, metadata, timeout_s)
        try:
            while True:
                with self._connection.calling():
                    message = await call.read()
                if message is EOF:
                    return
                yield message
        except grpc.RpcError as failure:
            error = to_error(cast(FailedCall, failure), request_id=caller.request_id)
            raise _taxonomic(error, application, failure) from failure
        except ClientError as error:
            raise _taxonomic(error, application, error.__cause__) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Ends all calls `NotReady`, as it is this service that ends."""
        self._closed = True
        await self._connection.close()

    def _context(self, caller: Caller) -> CallContext:
        if self._closed:
            raise shutting_down()
        return CallContext(
            request_id=caller.request_id,
            deadline=Deadline(caller.left_s()),
            api_key=caller.api_key,
            retry=self._retry,
            traceparent=caller.traceparent,
            inner=True,
        )


class _Unary(Protocol):
    async def unary(
        self,
        application: str,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        caller: Caller,
    ) -> ResponseT: ...


async def check_ready(peer: _Unary, application: str, caller: Caller) -> None:
    """Returns where an application serves. Raises `NotReady` with the reason, or `OrreryError`."""
    request = health_pb2.HealthCheckRequest(service=READINESS)
    await peer.unary(application, _CHECK_HEALTH, request, caller)


class _ItemError(Protocol):
    """How a service reports that one of many failed."""

    reason: str
    message: str
    field: str


def error_of_item(item: _ItemError) -> OrreryError:
    """What a call of its own would have raised."""
    kind = _BY_REASON.get(item.reason, Internal)
    return kind(item.message, field=item.field or None)


def _taxonomic(error: ClientError, application: str, cause: BaseException | None) -> OrreryError:
    """The client's error, which `cause` made it raise, as one of the platform's own taxonomy."""
    said = isinstance(cause, grpc.RpcError) and is_said_by_server(cast(FailedCall, cause))
    if isinstance(error, CancelledError) and not said:  # by `Peer.close`
        return shutting_down()
    if isinstance(error, UnavailableError | ModelNotFoundError) and not said:
        # The load balancer or gRPC itself says so: nobody is there, whatever the words are.
        _log.warning(
            "service_lost",
            extra={
                "application": application,
                "request_id": error.request_id,
                "detail": error.message,
            },
        )
        return DependencyDown(
            f"the service {application!r} does not answer", retry_after_s=_REPLACED_S
        )
    if isinstance(error, DeadlineExceededError):
        message = error.message if said else "the time of the request was up before its answer"
        return DeadlineExceeded(message, stage=error.stage)
    kind = _BY_REASON.get(error.reason, Internal)
    return kind(
        error.message,
        field=error.field,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
        stage=error.stage,
    )
