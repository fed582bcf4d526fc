"""A plain `grpc.aio` server with the real embedding service over a small CLIP with random weights.

    async with clip_server() as server:
        channel = grpc.aio.insecure_channel(server.target)

The model embeds texts and pictures, classifies and compares; what it finds alike is chance, and
always the same. `folder` serves another CLIP folder. `application` metadata is accepted and not
needed. `clip_server` is asynchronous; `clip_server_in_thread` serves tests of synchronous clients,
and `clip_servicer` gives the servicer alone, for tests that have a server.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.embedding.config import EmbeddingConfig
from services.embedding.loading import load_models
from services.embedding.registration import add_to_server
from services.embedding.service import EmbeddingService
from services.embedding.servicer import EmbeddingServicer
from services.runtime.auth import Authenticator
from services.runtime.health import HealthServicer
from services.runtime.message_size import MAX_MESSAGE_BYTES
from services.runtime.metrics import PrometheusRegistry
from services.runtime.rpc import RpcPolicy
from tests.fakes.in_thread import in_thread
from tests.fakes.random_clip import random_clip_folder

SERVICE = "orrery.v1.EmbeddingService"
MODEL_NAME = "tiny-clip"


@dataclass(frozen=True, slots=True)
class RunningClip:
    """Where the server listens, and what is behind it."""

    target: str
    servicer: EmbeddingServicer
    registry: PrometheusRegistry


@asynccontextmanager
async def clip_servicer(
    folder: Path | None = None,
    *,
    redis_url: str | None = None,
    api_keys: tuple[str, ...] = (),
    **settings: Any,
) -> AsyncIterator[RunningClip]:
    """The servicer without a server (its `target` is empty). `settings`: of `EmbeddingConfig`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_clip_folder(Path(scratch) / "clip") if folder is None else folder
        defaults = {"model_name": MODEL_NAME, "dtype": "float32", "num_threads": 1}
        config = EmbeddingConfig(**{**defaults, **settings, "model_path": str(folder)})
        models = await load_models(config, config.model_path, None)
    registry = PrometheusRegistry({"service": "embedding", "model": config.model_name})
    service = EmbeddingService(config, models, registry, redis_url)
    policy = RpcPolicy(authenticator=Authenticator(api_keys))
    servicer = EmbeddingServicer(config, service, policy)
    try:
        yield RunningClip("", servicer, registry)
    finally:
        await service.close()
        models.close()


@asynccontextmanager
async def clip_server(folder: Path | None = None, **options: Any) -> AsyncIterator[RunningClip]:
    """Starts the server; leaving stops it at once. `options` as of `clip_servicer`."""
    async with clip_servicer(folder, **options) as clip:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ]
        )
        add_to_server(clip.servicer, server)
        health = HealthServicer((SERVICE,), clip.servicer.rpc.lifecycle)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield RunningClip(f"127.0.0.1:{port}", clip.servicer, clip.registry)
        finally:
            await server.stop(grace=None)


@contextmanager
def clip_server_in_thread(folder: Path | None = None, **options: Any) -> Iterator[RunningClip]:
    """The same server on an event loop of its own thread."""
    with in_thread(clip_server(folder, **options), "clip-server") as running:
        yield running
