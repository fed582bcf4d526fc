"""A plain `grpc.aio` server with the real retrieval, file and embedding services on one port.

    async with retrieval_server(redis_url, data_dir) as server:
        channel = grpc.aio.insecure_channel(server.target)

It embeds by hashes of words (`hash_embedding.py`) unless `model=True`: then by the real embedding
service with the default model, in this process. `application` metadata is accepted and not
needed. As a process of its own, for tests that kill it; it prints its port when it is ready:

    python -m tests.fakes.retrieval_server --redis-url URL --data-dir DIR [--port N] [--model]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.embedding.registration import add_to_server as add_embedding_to_server
from services.retrieval.config import RetrievalConfig
from services.retrieval.embedder import PeerEmbedder
from services.retrieval.file_servicer import FileServicer
from services.retrieval.registration import add_files_to_server, add_retrieval_to_server
from services.retrieval.service import RetrievalService, Stores
from services.retrieval.servicer import RetrievalServicer
from services.runtime import store
from services.runtime.auth import Authenticator
from services.runtime.config import Settings
from services.runtime.health import HealthServicer
from services.runtime.message_size import MAX_MESSAGE_BYTES
from services.runtime.metrics import PrometheusRegistry
from services.runtime.peer import Peer
from services.runtime.rpc import RpcPolicy
from tests.fakes.hash_embedding import HashEmbeddingServicer
from tests.fakes.in_thread import in_thread

SERVICES = ("orrery.v1.RetrievalService", "orrery.v1.FileService", "orrery.v1.EmbeddingService")


@dataclass(frozen=True, slots=True)
class RunningRetrieval:
    """Where the server listens, and what is behind it."""

    target: str
    service: RetrievalService
    servicer: RetrievalServicer
    embedding: Any  # the servicer: of hashes, or the real one
    registry: PrometheusRegistry
    server: grpc.aio.Server


@asynccontextmanager
async def retrieval_server(
    redis_url: str,
    data_dir: Path,
    config: RetrievalConfig | None = None,
    *,
    model: bool = False,
    embedding: Any = None,
    api_keys: tuple[str, ...] = (),
    port: int = 0,
) -> AsyncIterator[RunningRetrieval]:
    """Returns when the replica has caught up; leaving stops the server at once.

    `embedding`: a servicer to embed with, in place of one of its own.
    """
    config = config or RetrievalConfig()
    registry = PrometheusRegistry({"service": "retrieval", "model": ""})
    policy = RpcPolicy(authenticator=Authenticator(api_keys))
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    target = f"127.0.0.1:{port}"
    settings = Settings()
    async with AsyncExitStack() as stack:
        if embedding is None:
            embedding = HashEmbeddingServicer()
            if model:
                embedding = await stack.enter_async_context(real_embedding())
        redis = store.connect(redis_url)
        stack.push_async_callback(redis.aclose)
        peer = Peer(target)
        stack.push_async_callback(peer.close)
        tokenizers = {
            application: settings.model_folder(folder)
            for application, folder in config.embedding_applications.items()
        }
        stores = Stores(redis, data_dir, PeerEmbedder(peer), tokenizers, registry)
        service = await RetrievalService.start(config, stores)
        stack.push_async_callback(service.close)
        servicer = RetrievalServicer(config, service, policy)
        add_retrieval_to_server(servicer, server)
        add_files_to_server(FileServicer(config, service, policy), server)
        add_embedding_to_server(embedding, server)
        health = HealthServicer(
            SERVICES, policy.lifecycle, lambda: service.failure, lambda: service.hindrance
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        await server.start()
        stack.push_async_callback(server.stop, None)
        yield RunningRetrieval(target, service, servicer, embedding, registry, server)


@asynccontextmanager
async def real_embedding() -> AsyncIterator[Any]:
    """The real embedding servicer with the default model, on one thread."""
    from services.embedding.config import EmbeddingConfig
    from services.embedding.loading import load_models
    from services.embedding.service import EmbeddingService
    from services.embedding.servicer import EmbeddingServicer

    config = EmbeddingConfig(num_threads=1)
    models = await load_models(config, Settings().model_folder(config.model_path), None)
    registry = PrometheusRegistry({"service": "embedding", "model": config.model_name})
    service = EmbeddingService(config, models, registry, None)
    servicer = EmbeddingServicer(config, service, RpcPolicy())
    try:
        yield servicer
    finally:
        await servicer.close()
        models.close()


@contextmanager
def retrieval_server_in_thread(
    redis_url: str, data_dir: Path, **options: Any
) -> Iterator[RunningRetrieval]:
    """The same server on an event loop of its own thread, for tests of synchronous clients."""
    with in_thread(retrieval_server(redis_url, data_dir, **options), "retrieval-server") as running:
        yield running


async def _main(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = RetrievalConfig.model_validate_json(arguments.config)
    async with retrieval_server(
        arguments.redis_url,
        arguments.data_dir,
        config,
        model=arguments.model,
        port=arguments.port,
    ) as server:
        sys.stdout.write(server.target.rpartition(":")[2] + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", default="{}", help="a RetrievalConfig, as JSON")
    parser.add_argument("--model", action="store_true", help="embed with the real model")
    asyncio.run(_main(parser.parse_args()))
