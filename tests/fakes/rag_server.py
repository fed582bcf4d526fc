"""A plain `grpc.aio` server with the real RAG servicer, on a free loopback port.

    async with rag_server(FakeServices(passages=[...], replies=["..."])) as server:
        channel = grpc.aio.insecure_channel(server.target)

It asks whichever services are given, scripted ones or `PeerServices` over real servers. Health and
reflection are on, as on the platform.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.rag.config import ModelConfig, RagConfig
from services.rag.conversations import Conversations
from services.rag.metrics import RagMetrics
from services.rag.pipeline import Pipeline
from services.rag.registration import add_to_server
from services.rag.servicer import RagServicer
from services.rag.services import Services
from services.runtime import store
from services.runtime.auth import Authenticator
from services.runtime.health import HealthServicer
from services.runtime.metrics import PrometheusRegistry
from services.runtime.rpc import RpcPolicy

SERVICE = "orrery.v1.RagService"
CONFIG = RagConfig(
    models={
        "llama": ModelConfig(style="orrery", aliases=("orrery-llama",)),
        "chat": ModelConfig(style="instruct"),
    },
    default_model="llama",
)


@dataclass(frozen=True, slots=True)
class RunningRag:
    """Where the server listens, and what is behind it."""

    target: str
    servicer: RagServicer
    pipeline: Pipeline
    registry: PrometheusRegistry


@asynccontextmanager
async def rag_server(
    services: Services,
    config: RagConfig = CONFIG,
    *,
    redis_url: str | None = None,
    api_keys: tuple[str, ...] = (),
) -> AsyncIterator[RunningRag]:
    """Starts the server; leaving stops it at once."""
    registry = PrometheusRegistry({"service": "rag", "model": config.default_model})
    redis = None if redis_url is None else store.connect(redis_url)
    metrics = RagMetrics(registry)
    conversations = Conversations(redis, config.conversations, metrics.redis_available)
    conversations.watch(metrics.redis_memory)
    pipeline = Pipeline(config, services, conversations, metrics)
    policy = RpcPolicy(authenticator=Authenticator(api_keys))
    servicer = RagServicer(config, pipeline, conversations, policy)
    server = grpc.aio.server()
    add_to_server(servicer, server)
    health = HealthServicer((SERVICE,), policy.lifecycle)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield RunningRag(f"127.0.0.1:{port}", servicer, pipeline, registry)
    finally:
        await server.stop(grace=None)
        await conversations.close()
