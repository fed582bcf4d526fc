"""A plain `grpc.aio` server with the real image servicer, on a free loopback port.

    async with image_server() as server:
        channel = grpc.aio.insecure_channel(server.target)

With nothing given it serves the scripted engine, which makes pictures at once, and ranks by the
scripted ranker. With a `folder` it serves the real engine over the diffusers folder that lies
there (`random_diffusion_folder` makes one); with a `clip_target` it ranks by the CLIP service that
listens there. Health and reflection are on, as on the platform; there is one application, so
`application` metadata is accepted and not needed. `image_server` is asynchronous;
`image_server_in_thread` serves tests of synchronous clients.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.image.config import ImageConfig
from services.image.metrics import ImageMetrics
from services.image.ranking import PeerRanker, Ranker
from services.image.registration import add_to_server
from services.image.service import Engine, ImageService
from services.image.servicer import ImageServicer
from services.runtime.auth import Authenticator
from services.runtime.health import HealthServicer
from services.runtime.message_size import MAX_MESSAGE_BYTES
from services.runtime.metrics import PrometheusRegistry
from services.runtime.peer import Caller, Peer
from services.runtime.rpc import RpcPolicy
from tests.fakes.in_thread import in_thread
from tests.fakes.scripted_images import ScriptedEngine, scripted_model

SERVICE = "orrery.v1.ImageService"
MODEL_NAME = "scripted-diffusion"
CONFIG = ImageConfig(
    model_name=MODEL_NAME,
    model_path="unused",
    aliases=("orrery-diffusion",),
    ranking_application="clip",
)


class ScriptedRanker:
    """A `services.image.ranking.Ranker` that finds pictures alike by their bytes: between 0 and 1,
    the same for the same picture.
    """

    def __init__(self) -> None:
        self.fails_with: Exception | None = None  # a test sets it
        self.asked: list[int] = []  # how many pictures each call had

    async def check(self, prompt: str, caller: Caller) -> None:
        if self.fails_with is not None:
            raise self.fails_with

    async def similarities(self, prompt: str, pngs: Sequence[bytes], caller: Caller) -> list[float]:
        self.asked.append(len(pngs))
        if self.fails_with is not None:
            raise self.fails_with
        return [hashlib.sha256(png).digest()[0] / 256 for png in pngs]


@dataclass(frozen=True, slots=True)
class RunningImageServer:
    """Where the server listens, and what is behind it."""

    target: str
    servicer: ImageServicer
    engine: Any  # a ScriptedEngine, unless another was given
    ranker: Ranker | None
    registry: PrometheusRegistry
    server: grpc.aio.Server


@asynccontextmanager
async def image_server(
    engine: Engine | None = None,
    config: ImageConfig = CONFIG,
    *,
    folder: Path | None = None,
    ranker: Ranker | None = None,
    clip_target: str | None = None,
    api_keys: tuple[str, ...] = (),
) -> AsyncIterator[RunningImageServer]:
    """Starts the server; leaving stops it at once. An engine that is given stays open.

    Without a `ranker`, the scripted one ranks where the configuration names an application.
    """
    registry = PrometheusRegistry({"service": "image", "model": config.model_name})
    metrics = ImageMetrics(registry)
    model = scripted_model()
    async with AsyncExitStack() as stack:
        if folder is not None:
            from services.image.loading import load

            config = config.model_copy(update={"model_path": str(folder)})
            loaded = await load(config, str, metrics)
            engine, model = loaded.engine, loaded.model
            stack.push_async_callback(engine.close)
        engine = ScriptedEngine() if engine is None else engine
        if clip_target is not None:
            peer = Peer(clip_target)
            stack.push_async_callback(peer.close)
            ranker = PeerRanker(peer, config.ranking_application or "clip")
        if ranker is None and config.ranking_application is not None:
            ranker = ScriptedRanker()
        service = ImageService(config, model, engine, ranker, metrics)
        stack.callback(service.close)
        policy = RpcPolicy(authenticator=Authenticator(api_keys))
        servicer = ImageServicer(config, service, policy)
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
        add_to_server(servicer, server)
        health = HealthServicer((SERVICE,), policy.lifecycle, lambda: service.failure)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        reflection.enable_server_reflection(
            (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        yield RunningImageServer(f"127.0.0.1:{port}", servicer, engine, ranker, registry, server)


@contextmanager
def image_server_in_thread(
    engine: Engine | None = None, config: ImageConfig = CONFIG, **options: Any
) -> Iterator[RunningImageServer]:
    """The same server on an event loop of its own thread, for tests of synchronous clients."""
    with in_thread(image_server(engine, config, **options), "image-server") as running:
        yield running
