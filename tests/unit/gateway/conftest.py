"""The gateway as an ASGI app in this event loop, over the real servicer and the toy backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.runtime.auth import Authenticator
from services.runtime.peer import Peer
from tests.fakes.generation_server import MODEL_NAME, generation_server
from tests.fakes.retrieval_gateway import CONFIG, retrieval_gateway
from tests.fakes.toy_backend import ToyBackend
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

OpenScripted = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
OpenGateway = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def _open_gateway(
    backend: ToyBackend | None = None,
    api_keys: tuple[str, ...] = (),
    **settings: object,
) -> AsyncIterator[httpx.AsyncClient]:
    config = GatewayConfig(**{"applications": (MODEL_NAME,), **settings})
    async with generation_server(backend, api_keys=api_keys) as services:
        upstream = Peer(services.target, num_channels=1, max_retries=0)
        transport = httpx.ASGITransport(create_api(config, upstream, Authenticator(api_keys)))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client
        await upstream.close()


@pytest.fixture
def open_gateway() -> OpenGateway:
    """Opens a gateway with a backend, keys or settings of the test's own."""
    return _open_gateway


@pytest.fixture
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    """A gateway with the defaults."""
    async with _open_gateway() as client:
        yield client


@asynccontextmanager
async def _open_scripted(
    upstream: ScriptedUpstream, config: GatewayConfig = CONFIG
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_api(config, upstream, Authenticator()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.fixture
def open_scripted() -> OpenScripted:
    """Opens a gateway over a scripted upstream, with all services."""
    return _open_scripted


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway over all services, real ones but for their models."""
    with retrieval_gateway(tmp_path_factory.mktemp("everything")) as gateway:
        yield gateway.url


@pytest.fixture
def http(everything: str) -> Iterator[httpx.Client]:
    """A client of `everything` without cookies of other tests."""
    with httpx.Client(base_url=everything, timeout=60) as client:
        yield client
