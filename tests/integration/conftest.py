"""The HTTP API under test: in this process over the toy, and on the running platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from orrery import Client
from tests.fakes.gateway_server import gateway_server
from tests.fakes.generation_server import MODEL_NAME
from tests.fakes.retrieval_gateway import retrieval_gateway
from tests.fakes.toy_backend import ToyBackend, ToySettings
from tests.integration.two_replicas import TwoReplicas, started


@dataclass(frozen=True, slots=True)
class HttpApi:
    """Where the API listens, a model that chats, and a way to ask what its engine is doing."""

    url: str
    model: str
    is_idle: Callable[[], bool]

    @property
    def base_url(self) -> str:
        """As OpenAI's clients want it."""
        return f"{self.url}/v1"


@pytest.fixture(
    scope="session",
    params=["in_process", pytest.param("platform", marks=pytest.mark.integration)],
)
def http_api(request: pytest.FixtureRequest) -> Iterator[HttpApi]:
    """The same cases run against both."""
    if request.param == "platform":
        yield from _platform_api(request.getfixturevalue("platform"))
    else:
        yield from _in_process_api()


def _platform_api(platform: object) -> Iterator[HttpApi]:
    model = "orrery-llama"
    with Client(platform.grpc_target) as client:  # type: ignore[attr-defined]

        def is_idle() -> bool:
            load = client.load(model)
            all_free = load.num_free_blocks == load.num_blocks
            return load.num_running == 0 and load.num_waiting == 0 and all_free

        yield HttpApi(platform.http_url, model, is_idle)  # type: ignore[attr-defined]


def _in_process_api() -> Iterator[HttpApi]:
    backend = ToyBackend(ToySettings(step_s=0.002, max_running=64, max_waiting=512))

    def is_idle() -> bool:
        load = backend.load()
        all_free = load.num_free_blocks == load.num_blocks
        return load.num_running == 0 and load.num_waiting == 0 and all_free

    with gateway_server(backend) as gateway:
        yield HttpApi(gateway.url, MODEL_NAME, is_idle)


@dataclass(frozen=True, slots=True)
class RetrievalApi:
    """Where the API listens that has embeddings, collections and vector stores."""

    url: str
    embedding_model: str
    chat_model: str

    @property
    def base_url(self) -> str:
        """As OpenAI's clients want it."""
        return f"{self.url}/v1"


@pytest.fixture(
    scope="session",
    params=["in_process", pytest.param("platform", marks=pytest.mark.integration)],
)
def retrieval_api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RetrievalApi]:
    """The same cases run against both, each with the real embedding model."""
    if request.param == "platform":
        platform = request.getfixturevalue("platform")
        yield RetrievalApi(platform.http_url, "embedding", "orrery-llama")
    else:
        folder = tmp_path_factory.mktemp("retrieval")
        with retrieval_gateway(folder, model=True) as gateway:
            yield RetrievalApi(gateway.url, "embedding", MODEL_NAME)


@pytest.fixture(scope="session")
def two_replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoReplicas]:
    """A platform of its own, with two replicas; the last test of it has ended it."""
    with started(tmp_path_factory.mktemp("two-replicas")) as running:
        yield running
