"""A client that goes away takes its work with it: real uvicorn, real sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from services.gateway.config import GatewayConfig
from tests.fakes.gateway_server import RunningGateway, gateway_server
from tests.fakes.generation_server import MODEL_NAME
from tests.fakes.toy_backend import ToyBackend, ToySettings
from tests.unit.gateway.sse_client import DONE, events_of

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def slow_gateway() -> Iterator[RunningGateway]:
    """A gateway whose model takes seconds for an answer."""
    settings = ToySettings(step_s=0.02, max_running=64, max_waiting=512, max_model_len=4096)
    with gateway_server(ToyBackend(settings)) as running:
        yield running


def chat(**changes: Any) -> dict[str, Any]:
    return {
        "model": "toy",
        "messages": [{"role": "user", "content": "Who keeps the lamp?"}],
        "max_tokens": 2000,
        **changes,
    }


def send(gateway: RunningGateway, path: str, body: dict[str, Any]) -> socket.socket:
    """A request over a socket of its own, sent and not yet answered."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(head.encode() + data)
    return connection


def eventually(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def is_idle(backend: ToyBackend) -> bool:
    load = backend.load()
    free = load.num_free_blocks == load.num_blocks
    return load.num_running == 0 and load.num_waiting == 0 and free


def test_a_request_beyond_the_most_at_a_time_is_refused_and_probes_are_not() -> None:
    config = GatewayConfig(applications=(MODEL_NAME,), max_requests=2)
    backend = ToyBackend(ToySettings(step_s=0.02, max_model_len=4096))
    with (
        gateway_server(backend, config) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False) as client,
    ):
        first, second = (send(gateway, CHAT, chat()) for _ in range(2))
        assert eventually(lambda: backend.load().num_running == 2)
        refused = client.get("/v1/models")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "server_overloaded"
        assert client.get("/health").status_code == 200
        first.close()
        assert eventually(lambda: client.get("/v1/models").status_code == 200)
        second.close()
        assert eventually(lambda: is_idle(backend))


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_disconnect_while_decoding_ends_the_decode(
    slow_gateway: RunningGateway, path: str, streamed: bool
) -> None:
    body = chat(stream=streamed, n=2)
    if path == COMPLETIONS:
        del body["messages"]
        body["prompt"] = ["Lamps", "Ships", "Towers"]
    connection = send(slow_gateway, path, body)
    assert eventually(lambda: slow_gateway.backend.load().num_running > 0)
    if streamed:
        assert b"200" in connection.recv(4096)
    connection.close()
    assert eventually(lambda: is_idle(slow_gateway.backend))
    assert slow_gateway.backend.load().num_finished == (1 if path == CHAT else 3)


@pytest.mark.parametrize("streamed", [True, False])
def test_disconnect_in_the_queue_gives_the_place_up(streamed: bool) -> None:
    backend = ToyBackend(ToySettings(step_s=0.02, max_running=1, max_model_len=4096))
    with gateway_server(backend) as gateway:
        running = send(gateway, CHAT, chat())
        assert eventually(lambda: backend.load().num_running == 1)
        waiting = send(gateway, CHAT, chat(stream=streamed, max_tokens=100))
        assert eventually(lambda: backend.load().num_waiting == 1)
        waiting.close()
        assert eventually(lambda: backend.load().num_waiting == 0)
        running.close()
        assert eventually(lambda: is_idle(backend))


def test_client_that_leaves_while_sending_is_no_error_of_ours(
    slow_gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def statuses() -> list[int]:
        return [record.status for record in caplog.records if record.message == "request"]

    with caplog.at_level("INFO", "orrery.gateway"):
        with socket.create_connection(("127.0.0.1", slow_gateway.port)) as connection:
            connection.sendall(
                f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
                'content-length: 100\r\n\r\n{"model":'.encode()
            )
        assert eventually(lambda: statuses() == [499])
    assert all(record.levelname == "INFO" for record in caplog.records)


def test_tokens_are_sent_as_they_come(slow_gateway: RunningGateway) -> None:
    with httpx.stream(
        "POST", slow_gateway.url + CHAT, json=chat(stream=True, max_tokens=50), timeout=20
    ) as response:
        chunks = response.iter_raw()
        next(chunks)
        # The first bytes are here while the model still decodes.
        assert slow_gateway.backend.load().num_running == 1
        rest = list(chunks)
    assert len(rest) > 10


def test_error_in_the_middle_is_an_event_and_the_end(slow_gateway: RunningGateway) -> None:
    with httpx.stream(
        "POST", slow_gateway.url + CHAT, json=chat(stream=True), timeout=20
    ) as response:
        assert response.status_code == 200
        chunks = response.iter_text()
        text = next(chunks)
        slow_gateway.backend.dies_at_next_step = True
        text += "".join(chunks)
    events = events_of(text)
    assert events[-1]["error"]["type"] == "server_error"
    assert events[-1]["error"]["code"] == "not_ready"
    assert DONE not in events


def test_body_far_over_the_limit_is_refused_and_costs_nothing() -> None:
    config = GatewayConfig(applications=("toy",))
    backend = ToyBackend()
    with gateway_server(backend, config) as gateway:

        def chunks() -> Iterator[bytes]:
            for _ in range(24):
                yield b" " * (1 << 20)

        headers = {"content-type": "application/json"}
        declared = httpx.post(
            gateway.url + CHAT, content=b" " * (24 << 20), headers=headers, timeout=60
        )
        assert declared.status_code == 413
        assert declared.json()["error"]["code"] == "request_too_large"
        chunked = httpx.post(gateway.url + CHAT, content=chunks(), headers=headers, timeout=60)
        assert chunked.status_code == 413
        assert httpx.get(gateway.url + "/health").status_code == 200
        assert backend.load().num_finished == 0
