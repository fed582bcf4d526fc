"""The real gateway under a real uvicorn, over the real servicer and the toy backend.

    with gateway_server() as gateway:
        httpx.get(f"{gateway.url}/health")

Everything runs on one event loop in a thread of its own, so that synchronous and asynchronous
clients can be tested alike, and disconnects are those of real sockets. `start_more` starts other
services there and says at which target each application is.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.runtime.auth import Authenticator
from tests.fakes.generation_server import MODEL_NAME, generation_server
from tests.fakes.routed_upstream import RoutedUpstream
from tests.fakes.toy_backend import ToyBackend

StartServices = Callable[[AsyncExitStack], Awaitable[Mapping[str, str]]]


async def _no_more(_: AsyncExitStack) -> Mapping[str, str]:
    return {}


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
    start_more: StartServices = _no_more,
) -> Iterator[RunningGateway]:
    """Starts both servers on free loopback ports; leaving stops them."""
    backend = ToyBackend() if backend is None else backend
    config = config or GatewayConfig(applications=(MODEL_NAME,))
    started: Future[tuple[RunningGateway, Callable[[], None]]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        stop_from_outside = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(
                generation_server(backend, api_keys=api_keys)
            )
            targets = dict.fromkeys(config.applications, services.target)
            upstream = RoutedUpstream({**targets, **await start_more(stack)})
            api = create_api(config, upstream, Authenticator(api_keys))
            server = uvicorn.Server(
                uvicorn.Config(api, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
            )
            with socket.create_server(("127.0.0.1", 0)) as listener:
                # asyncio's own listeners have it, too: else each answer waits 40 ms for an ACK.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Whoever connects from here on waits in the backlog until the server is up.
                port = listener.getsockname()[1]
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                gateway = RunningGateway(f"http://127.0.0.1:{port}", port, backend)
                started.set_result((gateway, stop_from_outside))
                await stop.wait()
                server.should_exit = True
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
    gateway, stop = started.result(timeout=120)
    try:
        yield gateway
    finally:
        stop()
        thread.join(timeout=30)
        assert not thread.is_alive(), "the gateway did not stop"
