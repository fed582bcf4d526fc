"""The scripted server, and a way to make clients of both kinds for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.client.both_clients import AnyClient, AsyncFace, Either, SyncFace
from tests.unit.client.fake_retrieval import FakePlatform, fake_platform
from tests.unit.client.scripted import ScriptedServer, scripted_server

MakeClient = Callable[..., AnyClient]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORRERY_TARGET", "ORRERY_API_KEY", "ORRERY_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


@pytest_asyncio.fixture(params=["sync", "async"])
async def make_client(
    request: pytest.FixtureRequest, server: ScriptedServer
) -> AsyncIterator[MakeClient]:
    """Makes clients of one kind for the scripted server, and closes them at the end."""
    face = AsyncFace if request.param == "async" else SyncFace
    made: list[AnyClient] = []

    def make(target: str | None = None, **settings: Any) -> AnyClient:
        settings.setdefault("timeout_s", 10.0)
        made.append(face(target or server.target, **settings))
        return made[-1]

    yield make
    for client in made:
        await client.close()


@pytest.fixture
def client(make_client: MakeClient) -> AnyClient:
    return make_client()


@pytest_asyncio.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    """Services of retrieval, embedding and RAG, with an empty collection `docs`."""
    async with fake_platform() as running:
        running.retrieval.make("docs")
        yield running


@pytest_asyncio.fixture(params=["sync", "async"])
async def either(request: pytest.FixtureRequest, platform: FakePlatform) -> AsyncIterator[Either]:
    """A client of one kind for `platform`."""
    made = Either(request.param, platform.target)
    yield made
    await made.close()
