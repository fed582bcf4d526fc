"""The services behind the gateway, reached over gRPC. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from grpc_health.v1 import health_pb2

from orrery import methods
from orrery.v1 import generation_pb2 as pb
from services.gateway.upstream import Caller
from services.runtime.errors import NotReady
from services.runtime.peer import Peer

__all__ = ["GrpcUpstream"]

_CHECK_HEALTH: methods.Method[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
    methods.Method("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse.FromString)
)


class GrpcUpstream:
    """An `Upstream` over the connection to one gRPC target."""

    def __init__(self, target: str, *, num_channels: int, max_retries: int) -> None:
        self._peer = Peer(target, num_channels=num_channels, max_retries=max_retries)

    def generate(
        self, application: str, request: pb.GenerateRequest, caller: Caller
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """See `Upstream`. Nothing is tried again once the first message is there."""
        return self._peer.server_stream(application, methods.GENERATE, request, caller)

    async def generate_batch(
        self, application: str, request: pb.GenerateBatchRequest, caller: Caller
    ) -> pb.GenerateBatchResponse:
        """See `Upstream`."""
        return await self._peer.unary(application, methods.GENERATE_BATCH, request, caller)

    async def tokenize(
        self, application: str, request: pb.TokenizeRequest, caller: Caller
    ) -> pb.TokenizeResponse:
        """See `Upstream`."""
        return await self._peer.unary(application, methods.TOKENIZE, request, caller)

    async def detokenize(
        self, application: str, request: pb.DetokenizeRequest, caller: Caller
    ) -> pb.DetokenizeResponse:
        """See `Upstream`."""
        return await self._peer.unary(application, methods.DETOKENIZE, request, caller)

    async def get_model(
        self, application: str, request: pb.GetModelRequest, caller: Caller
    ) -> pb.GetModelResponse:
        """See `Upstream`."""
        return await self._peer.unary(application, methods.GET_MODEL, request, caller)

    async def check_health(self, application: str, caller: Caller) -> None:
        """See `Upstream`."""
        request = health_pb2.HealthCheckRequest()
        answer = await self._peer.unary(application, _CHECK_HEALTH, request, caller)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReady(f"the service {application!r} is not serving")

    async def close(self) -> None:
        """See `Upstream`."""
        await self._peer.close()
