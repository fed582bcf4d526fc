"""The gateway as an ASGI app in this event loop, over the real servicer and the toy backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.runtime.auth import Authenticator
from services.runtime.peer import Peer
from tests.fakes.generation_server import MODEL_NAME, generation_server
from tests.fakes.toy_backend import ToyBackend

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
