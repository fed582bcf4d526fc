"""A real gRPC server that does what a test tells it to, attempt by attempt.

    async with scripted_server() as server:
        server.on("Generate", abort(grpc.StatusCode.UNAVAILABLE, "starting"), tokens("a", "b"))

The first call to `Generate` is refused, every later one streams two tokens. Requests and their
metadata are in `server.seen`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2

from orrery.v1 import generation_pb2 as pb
from orrery.v1 import generation_pb2_grpc as pb_grpc
from services.runtime.errors import OrreryError, kind_of, to_status

Handler = Callable[[Any, grpc.aio.ServicerContext], AsyncIterator[Any]]


@dataclass(frozen=True)
class Seen:
    """A call that arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    peer: str


@dataclass
class ScriptedServer:
    """Handlers by method; each is used once, the last for ever."""

    target: str = ""
    seen: list[Seen] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    grpc_server: Any = None
    _scripts: dict[str, list[Handler]] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def on(self, method: str, *handlers: Handler) -> None:
        self._scripts[method] = list(handlers)

    def calls(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    async def arrival(self, method: str, count: int = 1) -> None:
        """Returns when `method` has been called `count` times."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.calls(method)) >= count)

    async def answer(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        async with self._news:
            self.seen.append(Seen(method, request, metadata, context.peer()))
            self._news.notify_all()
        script = self._scripts.get(method)
        if not script:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no script for {method}")
        handler = script.pop(0) if len(script) > 1 else script[0]
        try:
            async for message in handler(request, context):
                yield message
        except (asyncio.CancelledError, GeneratorExit):
            # The second where gRPC was sending a message when the cancel came.
            self.cancelled.set()
            raise


def tokens(*texts: str, pause_s: float = 0.0) -> Handler:
    """Streams these texts as choice 0, one message each, and stops."""

    async def handler(request: pb.GenerateRequest, context: Any) -> AsyncIterator[Any]:
        request_id = dict(context.invocation_metadata())["x-request-id"]
        for i, text in enumerate(texts):
            last = i == len(texts) - 1
            delta = pb.CompletionDelta(
                index=0,
                text=text,
                token_ids=[i],
                finish_reason=pb.FINISH_REASON_STOP if last else pb.FINISH_REASON_UNSPECIFIED,
            )
            yield pb.GenerateResponse(request_id=request_id, model="scripted", choices=[delta])
            await asyncio.sleep(pause_s)

    return handler


def endless(pause_s: float = 0.005) -> Handler:
    """Streams until it is cancelled."""
    return tokens(*["x"] * 100_000, pause_s=pause_s)


def reply(message: Any) -> Handler:
    """One response."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        yield message

    return handler


def abort(code: grpc.StatusCode, details: str = "", after: Handler | None = None) -> Handler:
    """A bare status, as from gRPC or a load balancer; after the messages of `after`, if given."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        if after is not None:
            async for message in after(request, context):
                yield message
        await context.abort(code, details)

    return handler


def refuse(error: OrreryError) -> Handler:
    """An error of the taxonomy, as a service sends it."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        details = to_status(error).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.set_code(kind_of(error).grpc_status)
        context.set_details(error.message)
        return
        yield

    return handler


def stall(seconds: float = 30.0) -> Handler:
    """No answer for a long time."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(seconds)
        return
        yield

    return handler


def model(name: str, *aliases: str) -> Handler:
    """`GetModel` of an application that serves `name`."""

    async def handler(request: pb.GetModelRequest, context: Any) -> AsyncIterator[Any]:
        if request.model not in ("", name, *aliases):
            await context.abort(grpc.StatusCode.NOT_FOUND, "another model")
        yield pb.GetModelResponse(model=name, family="llama")

    return handler


def by_application(handlers: dict[str, Handler]) -> Handler:
    """Chooses by the `application` metadata, as the platform's load balancer does."""

    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        application = dict(context.invocation_metadata()).get("application", "")
        if application not in handlers:
            details = f"Application '{application}' not found."
            await context.abort(grpc.StatusCode.NOT_FOUND, details)
        async for message in handlers[application](request, context):
            yield message

    return handler


class _Servicer(pb_grpc.GenerationServiceServicer):
    """Passes every RPC to the script."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for message in self._server.answer("Generate", request, context):
            yield message

    async def GenerateBatch(self, request: Any, context: Any) -> Any:
        return await _only(self._server.answer("GenerateBatch", request, context))

    async def Score(self, request: Any, context: Any) -> Any:
        return await _only(self._server.answer("Score", request, context))

    async def GetModel(self, request: Any, context: Any) -> Any:
        return await _only(self._server.answer("GetModel", request, context))

    async def GetLoad(self, request: Any, context: Any) -> Any:
        return await _only(self._server.answer("GetLoad", request, context))


async def _only(messages: AsyncIterator[Any]) -> Any:
    return await anext(messages, None)


def _listing(server: ScriptedServer) -> grpc.GenericRpcHandler:
    """Ray Serve's listing of applications; unimplemented unless scripted."""
    return _foreign(server, "ray.serve.RayServeAPIService", "ListApplications", FieldMask)


def _foreign(
    server: ScriptedServer, service: str, method: str, request_type: Any
) -> grpc.GenericRpcHandler:
    """One RPC that is not of the contract."""

    async def answer(request: Any, context: Any) -> Any:
        return await _only(server.answer(method, request, context))

    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request_type.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(service, {method: handler})


@asynccontextmanager
async def scripted_server(
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[ScriptedServer]:
    """Starts the server on a free loopback port.

    `GetModel` answers that it serves `scripted`, `Check` that it is ready.
    """
    server = ScriptedServer(grpc_server=grpc.aio.server())
    server.on("GetModel", model("scripted"))
    server.on("Check", reply(health_pb2.HealthCheckResponse(status=1)))
    pb_grpc.add_GenerationServiceServicer_to_server(_Servicer(server), server.grpc_server)
    health = _foreign(server, "grpc.health.v1.Health", "Check", health_pb2.HealthCheckRequest)
    server.grpc_server.add_generic_rpc_handlers((_listing(server), health))
    if credentials is None:
        port = server.grpc_server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.grpc_server.add_secure_port("127.0.0.1:0", credentials)
    server.target = f"127.0.0.1:{port}"
    await server.grpc_server.start()
    try:
        yield server
    finally:
        await server.grpc_server.stop(grace=None)
