"""`grpc.health.v1` for one service: Check, List and Watch over a question asked of its owner.

Under Serve these are methods of the deployment, reached with `application` metadata. They need no
API key: load balancers have none, and the answer is one word. Reflection needs no code of ours:
the server that holds the servicers answers it from their descriptors. Knows no service's domain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from grpc_health.v1 import health_pb2

from services.runtime.errors import ServiceNotFound
from services.runtime.rpc import Call, RpcPolicy, server_stream, unary

__all__ = ["HealthServicer"]

_WATCH_INTERVAL_S = 1.0


class HealthServicer:
    """Answers for the server as a whole (the empty name) and for the services named.

    `is_serving` is asked at each question and must answer at once.
    """

    def __init__(self, services: tuple[str, ...], is_serving: Callable[[], bool]) -> None:
        self._services = ("", *services)
        self._is_serving = is_serving
        # A policy of its own: it answers NOT_SERVING while its owner drains, and needs no key.
        self._rpc = RpcPolicy()

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    @unary(health_pb2.HealthCheckResponse, authenticated=False)
    async def Check(
        self, request: health_pb2.HealthCheckRequest, _call: Call
    ) -> health_pb2.HealthCheckResponse:
        """SERVING or NOT_SERVING; a service of another name is refused."""
        if request.service not in self._services:
            known = ", ".join(repr(name) for name in self._services)
            raise ServiceNotFound(f"service: expected one of {known}", field="service")
        return health_pb2.HealthCheckResponse(status=self._status())

    @unary(health_pb2.HealthListResponse, authenticated=False)
    async def List(
        self, _request: health_pb2.HealthListRequest, _call: Call
    ) -> health_pb2.HealthListResponse:
        """The status of every service."""
        status = health_pb2.HealthCheckResponse(status=self._status())
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, status))

    @server_stream(authenticated=False)
    async def Watch(
        self, request: health_pb2.HealthCheckRequest, _call: Call
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status now and at each change; an unknown name is SERVICE_UNKNOWN, as specified."""
        known = request.service in self._services
        last: int | None = None
        while True:
            status = self._status() if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(_WATCH_INTERVAL_S)

    def _status(self) -> health_pb2.HealthCheckResponse.ServingStatus:
        if self._is_serving():
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING
