"""`/v1/models`, tokens, `/ready`, `/version` and the documentation."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from grpc_health.v1 import health_pb2
from openai.types import Model

from services.gateway.config import GatewayConfig
from services.gateway.schemas.chat import ChatCompletionRequest
from tests.fakes.generation_server import generation_server
from tests.fakes.toy_backend import BOS, ToyBackend
from tests.unit.gateway.conftest import OpenGateway, OpenScripted
from tests.unit.gateway.scripted_upstream import ScriptedUpstream


async def test_models_are_those_that_the_services_serve(gateway: httpx.AsyncClient) -> None:
    listing = (await gateway.get("/v1/models")).json()
    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert Model.model_validate(model, strict=True).id == "toy"
    assert model["max_model_len"] == 512
    assert (await gateway.get("/v1/models/toy")).json() == model


async def test_unknown_model_is_404(gateway: httpx.AsyncClient) -> None:
    for name in ("gpt-5", "a/b", "toy/"):
        response = await gateway.get(f"/v1/models/{name}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


async def test_tokenize_and_detokenize_are_each_others_inverse(gateway: httpx.AsyncClient) -> None:
    body = {"model": "toy", "prompt": "Lämp", "return_token_strs": True}
    tokens = (await gateway.post("/tokenize", json=body)).json()
    assert tokens["tokens"] == [BOS, *"Lämp".encode()]
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert tokens["max_model_len"] == 512
    back = await gateway.post("/detokenize", json={"model": "toy", "tokens": tokens["tokens"]})
    assert back.json() == {"prompt": "<s>Lämp"}
    skipping = {"model": "toy", "tokens": tokens["tokens"], "skip_special_tokens": True}
    assert (await gateway.post("/detokenize", json=skipping)).json() == {"prompt": "Lämp"}


async def test_tokenize_without_special_tokens(gateway: httpx.AsyncClient) -> None:
    body = {"model": "toy", "prompt": "Lamp", "add_special_tokens": False}
    tokens = (await gateway.post("/tokenize", json=body)).json()
    assert tokens["tokens"] == list(b"Lamp")
    assert tokens["token_strs"] is None


async def test_tokenize_of_messages_counts_what_a_chat_would(gateway: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tokens = (await gateway.post("/tokenize", json={"model": "toy", "messages": messages})).json()
    chat = {"model": "toy", "messages": messages, "max_tokens": 1}
    usage = (await gateway.post("/v1/chat/completions", json=chat)).json()["usage"]
    assert tokens["count"] == usage["prompt_tokens"]


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        ("/tokenize", {"model": "toy"}, None),
        ("/tokenize", {"model": "toy", "prompt": "a", "messages": []}, "messages"),
        ("/tokenize", {"model": "toy", "prompt": ""}, "prompt"),
        ("/tokenize", {"model": "toy", "prompt": "a", "x": 1}, "x"),
        ("/detokenize", {"model": "toy", "tokens": [258]}, "tokens"),
        ("/detokenize", {"model": "toy", "tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"model": "toy", "tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1]}, "model"),
    ],
)
async def test_bad_token_request_is_refused(
    gateway: httpx.AsyncClient, url: str, body: dict[str, object], param: str | None
) -> None:
    response = await gateway.post(url, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_ready_names_each_service(open_gateway: OpenGateway) -> None:
    async with open_gateway(applications=("llama", "gpt")) as client:
        response = await client.get("/ready")
        assert response.status_code == 200
        assert response.json() == {
            "status": "ready",
            "services": {
                "llama": {"status": "ready", "reason": None},
                "gpt": {"status": "ready", "reason": None},
            },
        }


async def test_ready_is_503_when_a_service_has_stopped(open_gateway: OpenGateway) -> None:
    backend = ToyBackend()
    async with open_gateway(backend) as client:
        await backend.close()
        response = await client.get("/ready")
        assert response.status_code == 503
        assert response.json()["status"] == "not_ready"
        assert response.json()["services"]["toy"]["status"] == "not_ready"
        assert "NOT_READY" in response.json()["services"]["toy"]["reason"]
        assert (await client.get("/health")).status_code == 200


async def test_many_who_ask_whether_all_is_ready_share_one_look(
    open_scripted: OpenScripted,
) -> None:
    answering = asyncio.Event()

    async def check(_: object) -> health_pb2.HealthCheckResponse:
        await answering.wait()
        return health_pb2.HealthCheckResponse()

    upstream = ScriptedUpstream({"Check": check})
    config = GatewayConfig(applications=("llama", "gpt"))
    async with open_scripted(upstream, config) as client, asyncio.TaskGroup() as group:
        asking = [group.create_task(client.get("/ready")) for _ in range(10)]
        impatient = await client.get("/ready", headers={"x-timeout-ms": "10"})
        assert impatient.status_code == 504
        answering.set()
        assert {(await each).status_code for each in asking} == {200}
        assert (await client.get("/ready")).status_code == 200
    asked = [application for application, *_ in upstream.asked]
    assert {name: asked.count(name) for name in asked} == dict.fromkeys(config.all_applications, 1)


async def test_open_paths_have_places_of_their_own_and_health_needs_none(
    open_scripted: OpenScripted,
) -> None:
    answering = asyncio.Event()

    async def check(_: object) -> health_pb2.HealthCheckResponse:
        await answering.wait()
        return health_pb2.HealthCheckResponse()

    upstream = ScriptedUpstream({"Check": check})
    config = GatewayConfig(max_requests=1)
    async with open_scripted(upstream, config) as client, asyncio.TaskGroup() as group:
        asking = [group.create_task(client.get("/ready")) for _ in range(65)]
        (refused,), _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status_code == 429
        assert (await client.get("/version")).status_code == 429
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
        answering.set()
    assert sorted(each.result().status_code for each in asking) == [200] * 64 + [429]


async def test_nobody_behind_the_gateway_is_503_and_not_404() -> None:
    from services.gateway.api import create_api
    from services.runtime.auth import Authenticator
    from services.runtime.peer import Peer

    async with generation_server() as services:
        target = services.target
    upstream = Peer(target, num_channels=1, max_retries=0)
    api = create_api(GatewayConfig(applications=("toy",)), upstream, Authenticator())
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/ready")).status_code == 503
        body = {"model": "toy", "prompt": "Hi"}
        response = await client.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "not_ready"
        assert response.headers["retry-after"] == "1"
    await upstream.close()


async def test_service_that_goes_away_later_is_503(open_gateway: OpenGateway) -> None:
    backend = ToyBackend()
    async with open_gateway(backend) as client:
        body = {"model": "toy", "prompt": "Hi"}
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        await backend.close()
        for streamed in (False, True):
            response = await client.post("/v1/completions", json=body | {"stream": streamed})
            assert response.status_code == 503
            assert "retry-after" in response.headers


async def test_version_and_health(gateway: httpx.AsyncClient) -> None:
    version = (await gateway.get("/version")).json()
    assert version["contract"] == "orrery.v1"
    assert version["version"][0].isdigit()
    assert (await gateway.get("/health")).json() == {"status": "alive"}


async def test_openapi_describes_requests_answers_and_errors(gateway: httpx.AsyncClient) -> None:
    document = (await gateway.get("/openapi.json")).json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    schema = chat["requestBody"]["content"]["application/json"]["schema"]
    assert schema["$ref"].endswith("/ChatCompletionRequest")
    request = document["components"]["schemas"]["ChatCompletionRequest"]
    assert set(request["properties"]) == set(ChatCompletionRequest.model_fields)
    assert request["examples"]
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert chat["responses"]["429"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/ErrorBody"
    )
    assert "422" not in chat["responses"]
    assert (await gateway.get("/docs")).status_code == 200


async def test_openapi_describes_every_body_and_refers_to_nothing_missing(
    gateway: httpx.AsyncClient,
) -> None:
    text = (await gateway.get("/openapi.json")).text
    document = json.loads(text)
    schemas = document["components"]["schemas"]
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in schemas
    assert '"#/$defs/' not in text
    without_body = {"rebuild", "snapshot", "cancel"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            wants_body = method in ("post", "patch") and path.split("/")[-1] not in without_body
            assert ("requestBody" in operation) == wants_body, (method, path)
            assert "422" not in operation["responses"], (method, path)
    upload = document["paths"]["/v1/collections/{name}/documents"]["post"]["requestBody"]
    assert set(upload["content"]) == {"application/json", "multipart/form-data"}
    form = document["paths"]["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["file", "purpose"]
