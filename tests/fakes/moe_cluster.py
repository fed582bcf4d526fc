"""The router and its shards as plain `grpc.aio` servers on free loopback ports.

    async with moe_cluster(folder, num_shards=2) as cluster:
        channel = grpc.aio.insecure_channel(cluster.target)

Everything is real but Serve: each shard is a server of its own. `moe_cluster` is asynchronous;
`moe_cluster_in_thread` serves tests of synchronous decoders. With `shard_targets` it routes to
shards that run elsewhere, by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.moe.router.config import FailureConfig, RouterConfig
from services.moe.router.loading import load_model, start_router
from services.moe.router.metrics import RouterMetrics
from services.moe.router.peers import PeerShard
from services.moe.router.registration import add_to_server as add_router
from services.moe.router.service import RouterService
from services.moe.router.servicer import RouterServicer
from services.moe.shard.config import ShardConfig
from services.moe.shard.loading import load_shard
from services.moe.shard.metrics import ShardMetrics
from services.moe.shard.registration import add_to_server as add_shard
from services.moe.shard.service import ShardService
from services.moe.shard.servicer import ShardServicer
from services.runtime.auth import Authenticator
from services.runtime.health import HealthServicer
from services.runtime.message_size import MAX_MESSAGE_BYTES
from services.runtime.metrics import PrometheusRegistry
from services.runtime.peer import Peer
from services.runtime.rpc import RpcPolicy
from tests.fakes.in_thread import in_thread

__all__ = [
    "FAILURES",
    "MODEL_NAME",
    "RunningCluster",
    "RunningShard",
    "moe_cluster",
    "moe_cluster_in_thread",
    "shard_server",
]

MODEL_NAME = "tiny-moe"
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
# Short, so that a test that loses a shard does not wait for long.
FAILURES = FailureConfig(
    probe_interval_s=0.2, probe_lost_interval_s=0.05, replacement_timeout_s=20.0
)


@dataclass(eq=False)
class RunningShard:
    """One shard's server."""

    target: str
    service: ShardService
    servicer: ShardServicer
    server: grpc.aio.Server


@dataclass(eq=False)
class RunningCluster:
    """Where the router listens, and what is behind it."""

    target: str
    service: RouterService
    servicer: RouterServicer
    registry: PrometheusRegistry
    shards: dict[str, RunningShard] = field(default_factory=dict)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


@asynccontextmanager
async def shard_server(
    config: ShardConfig, port: int = 0, api_keys: tuple[str, ...] = ()
) -> AsyncIterator[RunningShard]:
    """A shard that holds nothing yet."""
    registry = PrometheusRegistry({"service": "moe_shard", "model": config.model_name})
    model, service = await load_shard(config, config.model_path, ShardMetrics(registry))
    policy = RpcPolicy(authenticator=Authenticator(api_keys))
    servicer = ShardServicer(config, model, service, policy)
    server = grpc.aio.server(options=[*OPTIONS, ("grpc.so_reuseport", 0)])
    add_shard(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield RunningShard(f"127.0.0.1:{bound}", service, servicer, server)
    finally:
        await server.stop(None)
        service.close()


@asynccontextmanager
async def moe_cluster(
    folder: Path,
    num_shards: int = 2,
    *,
    shard_targets: Mapping[str, str] | None = None,
    max_experts: int | None = None,
    api_keys: tuple[str, ...] = (),
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[RunningCluster]:
    """Starts everything; leaving stops it at once. `settings` are those of the router."""
    async with AsyncExitStack() as stack:
        targets = dict(shard_targets or {})
        shards: dict[str, RunningShard] = {}
        names = list(targets) or [f"shard-{number}" for number in range(num_shards)]
        config = RouterConfig(
            **{
                "model_name": MODEL_NAME,
                "model_path": str(folder),
                "shards": names,
                "num_threads": 1,
                "failures": FAILURES,
                "drain_timeout_s": 1.0,
                **settings,
            }
        )
        model, gates = await load_model(config, config.model_path)
        shard_config = ShardConfig(
            model_name=MODEL_NAME,
            model_path=str(folder),
            num_threads=1,
            dtype=config.dtype,
            max_expert_bytes=None if max_experts is None else max_experts * model.bytes_per_expert,
        )
        if shard_targets is None:
            for name in names:
                shard = await stack.enter_async_context(
                    shard_server(shard_config, api_keys=api_keys)
                )
                shards[name], targets[name] = shard, shard.target
        clients = {}
        for name, target in targets.items():
            peer = Peer(target, num_channels=1, max_retries=0)
            stack.push_async_callback(peer.close)
            clients[name] = PeerShard(peer, name, model, next(iter(api_keys), None))
            stack.push_async_callback(clients[name].close)
        registry = PrometheusRegistry({"service": "moe", "model": MODEL_NAME})
        service = await start_router(config, model, gates, clients, RouterMetrics(registry))
        stack.push_async_callback(service.close)
        policy = RpcPolicy(authenticator=Authenticator(api_keys))
        servicer = RouterServicer(config, service, policy)
        server = grpc.aio.server(options=[*OPTIONS, ("grpc.so_reuseport", 0)])
        add_router(servicer, server)
        health = HealthServicer(
            ("orrery.v1.MoeRouterService",),
            policy.lifecycle,
            lambda: service.failure,
            lambda: service.hindrance,
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        stack.push_async_callback(server.stop, None)
        yield RunningCluster(f"127.0.0.1:{bound}", service, servicer, registry, shards)


@contextmanager
def moe_cluster_in_thread(folder: Path, **options: Any) -> Iterator[RunningCluster]:
    """The same on an event loop of its own thread, for tests of synchronous decoders."""
    with in_thread(moe_cluster(folder, **options), "moe-cluster") as running:
        yield running
