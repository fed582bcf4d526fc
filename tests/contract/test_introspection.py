"""Health and reflection with `application` metadata, as grpcurl and load balancers use them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.contract.served import Served

SERVICE = "orrery.v1.GenerationService"
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", ["", SERVICE])
async def test_health_check_is_serving(served: Served, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    response = await stub.Check(
        health_pb2.HealthCheckRequest(service=name), metadata=served.metadata
    )
    assert response.status == SERVING


async def test_health_watch_begins_with_the_status(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), metadata=served.metadata)
    assert (await call.read()).status == SERVING
    call.cancel()


async def test_health_of_an_unknown_service_is_not_found(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="no"), metadata=served.metadata)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_the_services_and_their_methods(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    replies = [
        reply async for reply in stub.ServerReflectionInfo(iter(requests), metadata=served.metadata)
    ]
    names = {service.name for service in replies[0].list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in replies[1].file_descriptor_response.file_descriptor_proto
    ]
    methods = {
        method.name
        for file in files
        for service in file.service
        if f"{file.package}.{service.name}" == SERVICE
        for method in service.method
    }
    assert methods == {
        "Generate",
        "GenerateBatch",
        "Score",
        "Tokenize",
        "Detokenize",
        "GetModel",
        "GetLoad",
    }
