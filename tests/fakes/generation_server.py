"""A plain `grpc.aio` server with the real generation servicer, on a free loopback port.

    async with generation_server() as server:
        channel = grpc.aio.insecure_channel(server.target)

With no backend given it serves the toy. Health and reflection are on, as on the platform; there
is one application, so `application` metadata is accepted and not needed. `generation_server` is
asynchronous; `generation_server_in_thread` serves tests of synchronous clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.generation.backend import Backend
from services.generation.config import GenerationConfig
from services.generation.engine_errors import to_taxonomy
from services.generation.registration import add_to_server
from services.generation.servicer import GenerationServicer
from services.runtime.auth import Authenticator
from services.runtime.health import HealthServicer
from services.runtime.rpc import RpcPolicy
from services.runtime.tracing import PASSING, Tracer
from tests.fakes.in_thread import in_thread
from tests.fakes.toy_backend import ToyBackend

SERVICE = "orrery.v1.GenerationService"
MODEL_NAME = "toy"
MAX_MESSAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where the server listens, and what is behind it."""

    target: str
    servicer: GenerationServicer
    backend: Backend
    server: grpc.aio.Server


@asynccontextmanager
async def generation_server(
    backend: Backend | None = None,
    config: GenerationConfig | None = None,
    api_keys: tuple[str, ...] = (),
    tracer: Tracer = PASSING,
) -> AsyncIterator[RunningServer]:
    """Starts the server; leaving stops it at once. A backend that is given stays open."""
    own = ToyBackend()
    backend = own if backend is None else backend
    config = config or GenerationConfig(model_name=MODEL_NAME, model_path="unused")
    policy = RpcPolicy(authenticator=Authenticator(api_keys), translate=to_taxonomy, tracer=tracer)
    servicer = GenerationServicer(config, backend, policy)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    add_to_server(servicer, server)
    health = HealthServicer((SERVICE,), policy.lifecycle, lambda: backend.failure)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield RunningServer(f"127.0.0.1:{port}", servicer, backend, server)
    finally:
        await server.stop(grace=None)
        await own.close()


@contextmanager
def generation_server_in_thread(
    backend: Backend | None = None,
    config: GenerationConfig | None = None,
    api_keys: tuple[str, ...] = (),
) -> Iterator[RunningServer]:
    """The same server on an event loop of its own thread, for tests of synchronous clients."""
    with in_thread(generation_server(backend, config, api_keys), "generation-server") as running:
        yield running
