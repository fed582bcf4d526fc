"""Every contract test runs twice: in this process, and against the running platform.

In this process the real servicer stands under a plain `grpc.aio` server over the native engine
with the demo LLaMA in float32. Against the platform the same calls go through its gRPC port with
`application` metadata; those are marked `integration`. `CONTRACT_TEST_TARGET` (gRPC) and
`CONTRACT_TEST_URL` (HTTP) name a platform that runs already; without them the `platform` fixture
starts one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.engine.config import EngineConfig
from services.generation.config import GenerationConfig
from services.generation.native import NativeBackend
from services.runtime.metrics import PrometheusRegistry
from tests.contract import image_served
from tests.contract.image_served import InThisProcess, ServedImages
from tests.contract.retrieval_served import (
    ServedRetrieval,
    retrieval_in_process,
    served_retrieval,
)
from tests.contract.served import Served, is_idle
from tests.fakes.generation_server import generation_server

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET_VARIABLE = "CONTRACT_TEST_TARGET"
URL_VARIABLE = "CONTRACT_TEST_URL"
MODEL = "orrery-llama"
APPLICATION = "llama"
FOLDER = REPOSITORY / "models" / MODEL

CONFIG = GenerationConfig(
    model_name=MODEL,
    model_path=str(FOLDER),
    engine=EngineConfig(dtype="float32", num_threads=1, kv_cache_bytes=64 << 20, max_num_seqs=32),
)


@pytest.fixture(scope="session")
def native_backend() -> Iterator[NativeBackend]:
    """The demo LLaMA in the native engine, loaded once."""
    registry = PrometheusRegistry({"service": "generation", "model": MODEL})
    # Asked for from inside a running event loop: loading needs a loop in another thread.
    with ThreadPoolExecutor(max_workers=1) as elsewhere:
        starting = NativeBackend.start(CONFIG, CONFIG.model_path, registry)
        backend = elsewhere.submit(asyncio.run, starting).result()
        yield backend
        elsewhere.submit(asyncio.run, backend.close()).result()


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """The application under test. After each test nothing may be left running in it."""
    if request.param == "in-process":
        context = _in_process(request.getfixturevalue("native_backend"))
    else:
        context = _on_platform(*_platform_addresses(request))
    async with context as application:
        yield application
        load = await application.wait_until_idle(limit_s=10.0)
        assert is_idle(load), f"something is still held: {load}"


def _platform_addresses(request: pytest.FixtureRequest) -> tuple[str, str]:
    if TARGET_VARIABLE in os.environ:
        return os.environ[TARGET_VARIABLE], os.environ[URL_VARIABLE]
    platform = request.getfixturevalue("platform")
    return platform.grpc_target, platform.http_url


@asynccontextmanager
async def _in_process(backend: NativeBackend) -> AsyncIterator[Served]:
    async with (
        generation_server(backend, CONFIG) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield Served(server.target, channel, (), MODEL, FOLDER, None, exact=True)


@asynccontextmanager
async def _on_platform(target: str, http_url: str) -> AsyncIterator[Served]:
    async with grpc.aio.insecure_channel(target) as channel:
        metadata = (("application", APPLICATION),)
        yield Served(target, channel, metadata, MODEL, FOLDER, http_url, exact=False)


@pytest.fixture(scope="session")
def retrieval_in_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the retrieval service with the real embedding model listens; started once."""
    with retrieval_in_process(tmp_path_factory.mktemp("retrieval")) as server:
        yield server.target


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def retrieval(request: pytest.FixtureRequest) -> AsyncIterator[ServedRetrieval]:
    """The retrieval application under test. What a test makes is removed, and nothing runs on."""
    on_platform = request.param == "platform"
    if not on_platform:
        target = request.getfixturevalue("retrieval_in_this_process")
    elif TARGET_VARIABLE in os.environ:
        target = os.environ[TARGET_VARIABLE]
    else:
        target = request.getfixturevalue("platform").grpc_target
    async with served_retrieval(target, platform=on_platform) as application:
        yield application


@pytest.fixture(scope="session")
def images_in_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InThisProcess]:
    """Where the image service listens, and CLIP; started once."""
    with image_served.in_this_process(tmp_path_factory.mktemp("images")) as targets:
        yield targets


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def served_images(request: pytest.FixtureRequest) -> AsyncIterator[ServedImages]:
    """The image application under test. After each test nothing may be held in it."""
    if request.param == "in-process":
        running = request.getfixturevalue("images_in_this_process")
        context = image_served.reached(running.target, running.clip_target, routed=False)
    else:
        target = _platform_addresses(request)[0]
        context = image_served.reached(target, target, routed=True)
    async with context as application:
        yield application
        load = await application.wait_until_idle(limit_s=60.0)
        assert image_served.is_idle(load), f"something is still held: {load}"
