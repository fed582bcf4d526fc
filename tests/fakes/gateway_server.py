"""The real gateway under a real uvicorn, over the real servicer and the toy backend.

    with gateway_server() as gateway:
        httpx.get(f"{gateway.url}/health")

Everything runs on one event loop in a thread of its own, so that synchronous and asynchronous
clients can be tested alike, and disconnects are those of real sockets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.gateway.grpc_upstream import GrpcUpstream
from services.runtime.auth import Authenticator
from tests.fakes.generation_server import MODEL_NAME, generation_server
from tests.fakes.toy_backend import ToyBackend


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Where the gateway listens, and the backend that answers in the end."""

    url: str
    port: int
    backend: ToyBackend


@contextmanager
def gateway_server(
    backend: ToyBackend | None = None,
    config: GatewayConfig | None = None,
    api_keys: tuple[str, ...] = (),
) -> Iterator[RunningGateway]:
    """Starts both servers on free loopback ports; leaving stops them."""
    backend = ToyBackend() if backend is None else backend
    config = config or GatewayConfig(applications=(MODEL_NAME,))
    started: Future[RunningGateway] = Future()
    stop = threading.Event()

    async def serve() -> None:
        async with generation_server(backend, api_keys=api_keys) as services:
            upstream = GrpcUpstream(services.target, num_channels=2, max_retries=1)
            api = create_api(config, upstream, Authenticator(api_keys))
            server = uvicorn.Server(
                uvicorn.Config(api, host="127.0.0.1", port=0, log_config=None, lifespan="on")
            )
            serving = asyncio.create_task(server.serve())
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            started.set_result(RunningGateway(f"http://127.0.0.1:{port}", port, backend))
            while not stop.is_set():
                await asyncio.sleep(0.02)
            server.should_exit = True
            server.force_exit = True
            await serving

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="gateway-server")
    thread.start()
    try:
        yield started.result(timeout=30)
    finally:
        stop.set()
        thread.join(timeout=30)
        assert not thread.is_alive(), "the gateway did not stop"
