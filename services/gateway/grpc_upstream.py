"""The services behind the gateway, reached over gRPC through the `orrery` client's connection.

Messages stay protobuf: parsing each token into the client's result objects would cost more than
all the rest. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from types import MappingProxyType
from typing import Any, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2

from orrery import methods
from orrery.async_connection import EOF, AsyncConnection
from orrery.errors import DeadlineExceededError, ModelNotFoundError, UnavailableError
from orrery.errors import OrreryError as ClientError
from orrery.retry import Deadline, RetryPolicy
from orrery.settings import ClientSettings
from orrery.status import FailedCall, is_said_by_server, to_error
from orrery.steps import CallContext, send_with_retries
from orrery.v1 import generation_pb2 as pb
from services.gateway.upstream import Caller
from services.runtime.errors import (
    ERROR_TABLE,
    DeadlineExceeded,
    DependencyDown,
    Internal,
    NotReady,
    OrreryError,
)

__all__ = ["GrpcUpstream"]

_CHECK_HEALTH: methods.Method[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
    methods.Method("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse.FromString)
)
_BY_REASON = MappingProxyType({kind.reason: error for error, kind in ERROR_TABLE.items()})

T = TypeVar("T")
_log = logging.getLogger("orrery.gateway")


class GrpcUpstream:
    """An `Upstream` over a few HTTP/2 connections to one gRPC target."""

    def __init__(self, target: str, *, num_channels: int, max_retries: int) -> None:
        self._connection = AsyncConnection(
            ClientSettings(target=target, num_channels=num_channels, applications=())
        )
        # A server that says when to come back is not waited for here: the HTTP client is told.
        self._retry = RetryPolicy(max_retries=max_retries, max_retry_after_s=0.0)

    async def generate(
        self, application: str, request: pb.GenerateRequest, caller: Caller
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """See `Upstream`. Nothing is tried again once the first message is there."""
        calls: list[Any] = []
        try:
            steps = send_with_retries(
                self._context(caller), methods.GENERATE, request, application=application
            )
            message = await self._connection.run(steps, calls.append)
            while message is not None:
                yield message
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

    async def generate_batch(
        self, application: str, request: pb.GenerateBatchRequest, caller: Caller
    ) -> pb.GenerateBatchResponse:
        """See `Upstream`."""
        return await self._unary(application, methods.GENERATE_BATCH, request, caller)

    async def tokenize(
        self, application: str, request: pb.TokenizeRequest, caller: Caller
    ) -> pb.TokenizeResponse:
        """See `Upstream`."""
        return await self._unary(application, methods.TOKENIZE, request, caller)

    async def detokenize(
        self, application: str, request: pb.DetokenizeRequest, caller: Caller
    ) -> pb.DetokenizeResponse:
        """See `Upstream`."""
        return await self._unary(application, methods.DETOKENIZE, request, caller)

    async def get_model(
        self, application: str, request: pb.GetModelRequest, caller: Caller
    ) -> pb.GetModelResponse:
        """See `Upstream`."""
        return await self._unary(application, methods.GET_MODEL, request, caller)

    async def check_health(self, application: str, caller: Caller) -> None:
        """See `Upstream`."""
        answer = await self._unary(
            application, _CHECK_HEALTH, health_pb2.HealthCheckRequest(), caller
        )
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReady(f"the service {application!r} is not serving")

    async def close(self) -> None:
        """See `Upstream`."""
        await self._connection.close()

    async def _unary(
        self, application: str, method: methods.Method[Any, T], request: Any, caller: Caller
    ) -> T:
        steps = send_with_retries(self._context(caller), method, request, application=application)
        try:
            return await self._connection.run(steps)
        except ClientError as error:
            raise _taxonomic(error, application, error.__cause__) from error

    def _context(self, caller: Caller) -> CallContext:
        return CallContext(
            request_id=caller.request_id,
            deadline=Deadline(caller.left_s()),
            api_key=caller.api_key,
            retry=self._retry,
        )


def _taxonomic(error: ClientError, application: str, cause: BaseException | None) -> OrreryError:
    """The client's error, which `cause` made it raise, as one of the platform's own taxonomy."""
    said = isinstance(cause, grpc.RpcError) and is_said_by_server(cast(FailedCall, cause))
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
            f"the service {application!r} does not answer", retry_after_s=error.retry_after_s
        )
    if isinstance(error, DeadlineExceededError):
        return DeadlineExceeded("the time of the request was up before its answer was complete")
    kind = _BY_REASON.get(error.reason, Internal)
    return kind(
        error.message,
        field=error.field,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
    )
