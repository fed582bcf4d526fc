"""The HTTP API under test: in this process over the toy, and on the running platform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fakes.gateway_server import gateway_server
from tests.fakes.generation_server import MODEL_NAME


@dataclass(frozen=True, slots=True)
class HttpApi:
    """Where the API listens, and a model that chats."""

    url: str
    model: str

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
        yield HttpApi(request.getfixturevalue("platform").http_url, "orrery-llama")
        return
    with gateway_server() as gateway:
        yield HttpApi(gateway.url, MODEL_NAME)
