"""`grpc.health.v1` for one service: Check, List and Watch over questions asked of its owner.

Ray Serve's own question, whether a replica is to be replaced, is answered from the same.

Under Serve these are methods of the deployment, reached with `application` metadata. They need no
API key: load balancers have none, and the answer is one word. Reflection needs no code of ours:
the server that holds the servicers answers it from their descriptors. Knows no service's domain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from grpc_health.v1 import health_pb2

from services.runtime.errors import NotReady, ServiceNotFound
from services.runtime.lifecycle import Lifecycle, shutting_down
from services.runtime.rpc import Call, RpcPolicy, server_stream, unary

__all__ = ["READINESS", "HealthServicer"]

# Checked under this name, what does not serve says why: it fails with NOT_READY and the reason, for
# which the protocol's answer has no room.
READINESS = "orrery.readiness"

_WATCH_INTERVAL_S = 1.0


def _none() -> str | None:
    return None


class HealthServicer:
    """Answers for the server as a whole (the empty name) and for the services named.

    `failure` tells why the replica has to be replaced, `hindrance` why it does not serve as it
    should until that has passed; None = there is no such thing. Both are asked at each question and
    must answer at once.
    """

    def __init__(
        self,
        services: tuple[str, ...],
        lifecycle: Lifecycle,
        failure: Callable[[], str | None] = _none,
        hindrance: Callable[[], str | None] = _none,
    ) -> None:
        self._services = ("", *services)
        self._lifecycle = lifecycle
        self._failure = failure
        self._hindrance = hindrance
        # A policy of its own: it answers NOT_SERVING while its owner drains, and needs no key.
        self._rpc = RpcPolicy()

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    @property
    def problem(self) -> str | None:
        """Why the service does not serve; None = it does."""
        if self._lifecycle.draining:
            return shutting_down().message
        return self._failure() or self._hindrance()

    async def check_health(self) -> None:
        """Serve asks this of a deployment; raising gets the replica replaced."""
        failure = self._failure()
        if failure is not None:
            raise RuntimeError(failure)

    @unary(health_pb2.HealthCheckResponse, authenticated=False)
    async def Check(
        self, request: health_pb2.HealthCheckRequest, _call: Call
    ) -> health_pb2.HealthCheckResponse:
        """SERVING or NOT_SERVING; a service of another name is refused."""
        if request.service == READINESS:
            problem = self.problem
            if problem is not None:
                raise NotReady(problem, retry_after_s=1.0)
        elif request.service not in self._services:
            known = ", ".join(repr(name) for name in (*self._services, READINESS))
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
        """The status now and at each change; an unknown name is SERVICE_UNKNOWN, as specified.

        Ends when the service begins to stop, as nobody waits for those who only watch.
        """
        known = request.service in self._services
        last: int | None = None
        stops = False
        while not stops:
            stops = self._lifecycle.draining
            status = self._status() if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(_WATCH_INTERVAL_S)

    def _status(self) -> health_pb2.HealthCheckResponse.ServingStatus:
        if self.problem is None:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING
