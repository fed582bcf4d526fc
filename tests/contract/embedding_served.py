"""The embedding application that contract tests talk to: in this process or on the platform."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from services.embedding.config import EmbeddingConfig
from services.embedding.loading import Models
from services.embedding.registration import add_to_server
from services.embedding.service import EmbeddingService
from services.embedding.servicer import EmbeddingServicer
from services.runtime.config import Settings
from services.runtime.health import HealthServicer
from services.runtime.metrics import PrometheusRegistry
from services.runtime.rpc import RpcPolicy

APPLICATION = "embedding"
TARGET_VARIABLE = "CONTRACT_TEST_TARGET"
CONFIG = EmbeddingConfig(dtype="float32", num_threads=1)
# Where the service may compute in bfloat16.
MIN_COSINE = 0.998

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ServedEmbedding:
    """An embedding application with the default model."""

    channel: grpc.aio.Channel
    metadata: Metadata  # with the application's name
    exact: bool  # float32, so that vectors can be held to sentence-transformers' closely

    @property
    def stub(self) -> EmbeddingServiceStub:
        return EmbeddingServiceStub(self.channel)

    async def embed(self, texts: Sequence[str], **fields: object) -> pb.EmbedTextResponse:
        request = pb.EmbedTextRequest(inputs=[text(value) for value in texts], **fields)
        response: pb.EmbedTextResponse = await self.stub.EmbedText(request, metadata=self.metadata)
        return response

    async def rerank(
        self, query: str, passages: Sequence[str], **fields: object
    ) -> pb.RerankResponse:
        request = pb.RerankRequest(query=query, passages=passages, **fields)
        response: pb.RerankResponse = await self.stub.Rerank(request, metadata=self.metadata)
        return response

    async def model(self) -> pb.GetEmbeddingModelResponse:
        response: pb.GetEmbeddingModelResponse = await self.stub.GetEmbeddingModel(
            pb.GetEmbeddingModelRequest(), metadata=self.metadata
        )
        return response

    async def load(self) -> pb.EmbeddingServiceGetLoadResponse:
        response: pb.EmbeddingServiceGetLoadResponse = await self.stub.GetLoad(
            pb.EmbeddingServiceGetLoadRequest(), metadata=self.metadata
        )
        return response

    async def wait_until_idle(self, limit_s: float) -> pb.EmbeddingServiceGetLoadResponse:
        """The load once nothing runs or waits, or as it is when time is up."""
        end = time.monotonic() + limit_s
        while True:
            load = await self.load()
            if is_idle(load) or time.monotonic() > end:
                return load
            await asyncio.sleep(0.02)


def is_idle(load: pb.EmbeddingServiceGetLoadResponse) -> bool:
    """No call runs, no input waits or runs."""
    return (load.num_running, load.num_waiting_inputs, load.num_running_inputs) == (0, 0, 0)


def text(value: str) -> pb.EmbeddingInput:
    return pb.EmbeddingInput(text=value)


def tokens(ids: Sequence[int]) -> pb.EmbeddingInput:
    return pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=ids))


def model_folder() -> str:
    """Of the default model."""
    return Settings().model_folder(CONFIG.model_path)


@dataclass(frozen=True, slots=True)
class RunningEmbeddingServer:
    target: str
    servicer: EmbeddingServicer
    registry: PrometheusRegistry


@asynccontextmanager
async def embedding_server(
    models: Models, config: EmbeddingConfig = CONFIG, redis_url: str | None = None
) -> AsyncIterator[RunningEmbeddingServer]:
    """A plain `grpc.aio` server with the real servicer on a free loopback port.

    Leaving stops it at once. The models that are given stay usable.
    """
    registry = PrometheusRegistry({"service": "embedding", "model": config.model_name})
    service = EmbeddingService(config, models, registry, redis_url)
    policy = RpcPolicy()
    servicer = EmbeddingServicer(config, service, policy)
    server = grpc.aio.server()
    add_to_server(servicer, server)
    health = HealthServicer(
        ("orrery.v1.EmbeddingService",), policy.lifecycle, lambda: service.failure
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield RunningEmbeddingServer(f"127.0.0.1:{port}", servicer, registry)
    finally:
        await server.stop(grace=None)
        await service.close()


@asynccontextmanager
async def in_process(
    models: Models, config: EmbeddingConfig = CONFIG, redis_url: str | None = None
) -> AsyncIterator[ServedEmbedding]:
    async with (
        embedding_server(models, config, redis_url) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield ServedEmbedding(channel, (), exact=models.encoder.dtype == "float32")


@asynccontextmanager
async def on_platform(target: str) -> AsyncIterator[ServedEmbedding]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield ServedEmbedding(channel, (("application", APPLICATION),), exact=False)


def platform_target(start_platform: Callable[[], Any]) -> str:
    """Of the platform named in the environment, else of one that is started."""
    if TARGET_VARIABLE in os.environ:
        return os.environ[TARGET_VARIABLE]
    target: str = start_platform().grpc_target
    return target
