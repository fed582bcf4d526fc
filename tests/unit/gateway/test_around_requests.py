"""What surrounds every request: ids, keys, the access log, failures nobody foresaw."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.gateway.metrics import HttpMetrics
from services.runtime.auth import Authenticator
from services.runtime.metrics import PrometheusRegistry
from tests.unit.gateway.conftest import OpenGateway

CHAT: dict[str, Any] = {
    "model": "toy",
    "messages": [{"role": "user", "content": "my secret prompt"}],
    "max_tokens": 2,
}
KEY = "sk-right"


async def test_request_id_is_given_back_and_names_the_answer(gateway: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "order-66"}
    response = await gateway.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert response.headers.get_list("x-request-id") == ["order-66"]
    assert response.json()["id"] == "chatcmpl-order-66"
    made = [(await gateway.get("/health")).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic sk-right", "Bearer sk-rightx"]
)
async def test_without_the_right_key_nothing_behind_the_gateway_is_reached(
    open_gateway: OpenGateway, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with open_gateway(api_keys=(KEY,)) as client:
        for method, url in (
            ("GET", "/v1/models"),
            ("GET", "/v1/models/toy"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/completions"),
            ("POST", "/tokenize"),
            ("POST", "/detokenize"),
            ("GET", "/no/such/route"),
        ):
            response = await client.request(method, url, headers=headers)
            assert response.status_code == 401, url
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in response.text


async def test_with_the_right_key_services_are_reached_with_it(open_gateway: OpenGateway) -> None:
    async with open_gateway(api_keys=("sk-other", KEY)) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "toy"
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200, answer.text


async def test_probes_and_documentation_need_no_key(open_gateway: OpenGateway) -> None:
    async with open_gateway(api_keys=(KEY,)) as client:
        for url in ("/health", "/ready", "/version", "/docs", "/openapi.json"):
            assert (await client.get(url)).status_code == 200, url


async def test_access_log_has_a_hash_of_the_user_and_no_text(
    gateway: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "orrery.gateway"):
        for user in ("ann", "ann", "bob"):
            await gateway.post("/v1/chat/completions?q=secret", json=CHAT | {"user": user})
    lines = [record for record in caplog.records if record.message == "request"]
    assert [line.status for line in lines] == [200, 200, 200]  # type: ignore[attr-defined]
    hashes = [line.user_hash for line in lines]  # type: ignore[attr-defined]
    assert hashes[0] == hashes[1] != hashes[2]
    everything = " ".join(str(vars(line)) for line in caplog.records)
    for secret in ("secret", "ann", "bob"):
        assert secret not in everything


class BrokenUpstream:
    """Fails in a way that nobody foresaw."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("the inside of the gateway")

    async def close(self) -> None:
        return


async def test_failure_that_nobody_foresaw_is_500_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = create_api(GatewayConfig(applications=("toy",)), BrokenUpstream(), Authenticator())
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        response = await client.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "inside" not in response.text
    failures = [record for record in caplog.records if record.message == "request_failed"]
    assert failures[0].request_id == response.headers["x-request-id"]  # type: ignore[attr-defined]
    assert failures[0].exc_info is not None


async def test_requests_are_counted_by_route_template(open_gateway: OpenGateway) -> None:
    registry = PrometheusRegistry({"service": "gateway"})
    api = create_api(
        GatewayConfig(applications=("toy",)),
        BrokenUpstream(),
        Authenticator(),
        observe=HttpMetrics(registry).observe,
    )
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for url in ("/health", "/health", "/v1/models/a", "/v1/models/b", "/nowhere"):
            await client.get(url)

    def count(route: str, status: str) -> float | None:
        labels = {"service": "gateway", "route": route, "status": status}
        return registry.collector.get_sample_value("orrery_http_requests_total", labels)

    assert count("/health", "200") == 2
    assert count("/v1/models/{model_id:path}", "500") == 2
    assert count("unmatched", "404") == 1


async def test_taken_places_are_told_as_their_share() -> None:
    registry = PrometheusRegistry({"service": "gateway"})
    metrics = HttpMetrics(registry)
    told: list[tuple[str, float]] = []

    def usage(queue: str, share: float) -> None:
        told.append((queue, share))
        metrics.usage(queue, share)

    def share(queue: str) -> float | None:
        labels = {"service": "gateway", "queue": queue}
        return registry.collector.get_sample_value("orrery_queue_usage_perc", labels)

    assert (share("requests"), share("open_requests")) == (0, 0)
    config = GatewayConfig(applications=("toy",), max_requests=4)
    api = create_api(config, BrokenUpstream(), Authenticator(), observe_usage=usage)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        for url in ("/health", "/v1/models/a", "/version"):
            await client.get(url)
    taken = [("requests", 0.25), ("requests", 0), ("open_requests", 1 / 64), ("open_requests", 0)]
    assert told == taken
    assert (share("requests"), share("open_requests")) == (0, 0)
