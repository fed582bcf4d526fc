"""grpc.health.v1 and reflection, over a real server."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.health import READINESS, HealthServicer
from services.runtime.lifecycle import Lifecycle
from tests.contract.served import refusal
from tests.fakes.generation_server import SERVICE, generation_server
from tests.fakes.toy_backend import ToyBackend

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", SERVICE])
async def test_check_serves_without_a_key(name: str) -> None:
    async with (
        generation_server(api_keys=("k",)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert response.status == SERVING


async def test_check_of_an_unknown_service_is_not_found() -> None:
    async with (
        generation_server() as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nope"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_when_the_engine_dies_and_list_agrees() -> None:
    backend = ToyBackend()
    async with (
        generation_server(backend) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nope"))
        assert (await watch.read()).status == SERVING
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        await backend.close()
        assert (await watch.read()).status == NOT_SERVING
        listed = await stub.List(health_pb2.HealthListRequest())
        assert {status.status for status in listed.statuses.values()} == {NOT_SERVING}
        assert set(listed.statuses) == {"", SERVICE}
        watch.cancel()
        unknown.cancel()


async def test_watch_ends_when_the_service_begins_to_stop() -> None:
    async with (
        generation_server() as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await server.servicer.rpc.lifecycle.drain(limit_s=1)
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF


async def test_what_does_not_serve_says_why_where_it_is_asked_for_its_readiness() -> None:
    backend = ToyBackend()
    async with (
        generation_server(backend) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        question = health_pb2.HealthCheckRequest(service=READINESS)
        assert (await stub.Check(question)).status == SERVING
        await backend.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(question)
        refused = refusal(caught.value)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        assert caught.value.details() == "the engine has stopped"


async def test_only_a_failure_gets_a_replica_replaced() -> None:
    failure: str | None = None
    lifecycle = Lifecycle()
    health = HealthServicer((SERVICE,), lifecycle, lambda: failure, lambda: "its log is away")
    assert health.problem == "its log is away"
    await health.check_health()
    failure = "the model is broken"
    assert health.problem == failure
    with pytest.raises(RuntimeError, match=failure):
        await health.check_health()
    failure = None
    await lifecycle.drain(0.0)
    assert health.problem == "the service is shutting down"
    await health.check_health()


async def test_reflection_lists_the_services() -> None:
    async with (
        generation_server() as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        names = {service.name for service in (await call.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
