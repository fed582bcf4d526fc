"""Bad requests: the status, OpenAI's error shape, the field named as the client wrote it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.gateway.schemas.chat import ChatCompletionRequest
from services.gateway.schemas.completions import CompletionRequest
from tests.fakes.toy_backend import ToyBackend
from tests.unit.gateway.conftest import OpenGateway

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
JSON = {"content-type": "application/json"}


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "toy", "messages": [{"role": "user", "content": "Hi"}], **changes}


def completion(**changes: Any) -> dict[str, Any]:
    return {"model": "toy", "prompt": "Hi", **changes}


def message(**fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "Hi", **fields}])


def assert_refused(response: httpx.Response, status: int, param: str | None, code: str) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert response.headers["x-request-id"]
    text: str = error["message"]
    assert text
    return text


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (chat(temperature=-0.1), "temperature", "invalid_value"),
        (chat(temperature="0.5"), "temperature", "invalid_type"),
        (chat(temperature=True), "temperature", "invalid_type"),
        (chat(n=1000), "n", "invalid_value"),
        (chat(n=0), "n", "invalid_value"),
        (chat(n=-1), "n", "invalid_value"),
        (chat(n=1.5), "n", "invalid_type"),
        (chat(top_p=0), "top_p", "invalid_value"),
        (chat(top_p=1.1), "top_p", "invalid_value"),
        (chat(presence_penalty=2.5), "presence_penalty", "invalid_value"),
        (chat(stop=["s"] * 100), "stop", "invalid_value"),
        (chat(stop=[""]), "stop", "invalid_value"),
        (chat(stop=7), "stop", "invalid_type"),
        (chat(stop=["a", 7]), "stop[1]", "invalid_type"),
        (chat(seed=2**64), "seed", "invalid_type"),
        (chat(seed=-(2**63) - 1), "seed", "invalid_type"),
        (chat(logit_bias={"x": 1}), "logit_bias", "invalid_value"),
        (chat(logit_bias={"5": 101}), "logit_bias[5]", "invalid_value"),
        (chat(logit_bias={"5": "1"}), "logit_bias.5", "invalid_type"),
        (chat(max_tokens=0), "max_tokens", "invalid_value"),
        (chat(max_completion_tokens=0), "max_completion_tokens", "invalid_value"),
        (chat(max_tokens=-1), "max_tokens", "invalid_value"),
        (chat(max_tokens=5, max_completion_tokens=5), "max_completion_tokens", "invalid_value"),
        (chat(min_tokens=9, max_tokens=5), "min_tokens", "invalid_value"),
        (chat(top_logprobs=2), "top_logprobs", "invalid_value"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value"),
        (chat(logprobs=2), "logprobs", "invalid_type"),
        (chat(stream="yes"), "stream", "invalid_type"),
        (chat(stream_options={"include_usage": True}), "stream_options", "invalid_value"),
        (chat(stream=True, stream_options={"x": 1}), "stream_options.x", "unknown_parameter"),
        (chat(stream=True, prompt_logprobs=1), "prompt_logprobs", "invalid_value"),
        (chat(include_stop_str_in_output=1), "include_stop_str_in_output", "invalid_type"),
        (chat(model=""), "model", "invalid_value"),
        (chat(model="m" * 257), "model", "invalid_value"),
        (chat(nonsense=1), "nonsense", "unknown_parameter"),
        (chat(prompt="Hi"), "prompt", "unknown_parameter"),
        (chat(messages=[]), "messages", "invalid_value"),
        (chat(messages=None), "messages", "invalid_type"),
        (chat(messages="Hi"), "messages", "invalid_type"),
        (chat(messages=["Hi"]), "messages[0]", "invalid_type"),
        (message(role="tool"), "messages[0].role", "invalid_value"),
        (message(content=None), "messages[0].content", "invalid_type"),
        (message(content=[{"type": "image_url"}]), "messages[0].content", "unsupported_content"),
        (message(content=[{"type": "text"}]), "messages[0].content", "invalid_type"),
        (message(content=["Hi"]), "messages[0].content", "invalid_type"),
        (message(colour="red"), "messages[0].colour", "unknown_parameter"),
        (message(tool_calls=[{"id": "1"}]), "messages[0].tool_calls", "unsupported_parameter"),
        ({"model": "toy"}, "messages", "missing_required_parameter"),
        ({"messages": chat()["messages"]}, "model", "missing_required_parameter"),
        ([], None, "invalid_type"),
        ("Hi", None, "invalid_type"),
    ],
)
async def test_chat_request_is_refused_by_field(
    gateway: httpx.AsyncClient, body: Any, param: str | None, code: str
) -> None:
    text = assert_refused(await gateway.post(CHAT, json=body), 400, param, code)
    if param is not None:
        assert param.partition(".")[0].partition("[")[0] in text


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (completion(prompt=""), "prompt", "invalid_value"),
        (completion(prompt=[]), "prompt", "invalid_value"),
        (completion(prompt=[[]]), "prompt", "invalid_value"),
        (completion(prompt=None), "prompt", "invalid_type"),
        (completion(prompt=[1, "a"]), "prompt", "invalid_type"),
        (completion(prompt=["a", 1]), "prompt", "invalid_type"),
        (completion(prompt=[1, -1]), "prompt", "invalid_type"),
        (completion(prompt=[1.5]), "prompt", "invalid_type"),
        (completion(prompt=[True]), "prompt", "invalid_type"),
        (completion(prompt=[[1], "a"]), "prompt", "invalid_type"),
        (completion(prompt=[999]), "prompt", "invalid_value"),
        (completion(prompt="x" * 600), "prompt", "context_length_exceeded"),
        (completion(logprobs=21), "logprobs", "invalid_value"),
        (completion(logprobs=21, echo=True), "logprobs", "invalid_value"),
        (completion(logprobs=True), "logprobs", "invalid_type"),
        (completion(best_of=1, n=2), "best_of", "invalid_value"),
        (completion(suffix="end"), "suffix", "unsupported_parameter"),
        (completion(messages=[]), "messages", "unknown_parameter"),
        (completion(max_completion_tokens=5), "max_completion_tokens", "unknown_parameter"),
        (completion(beam_width=4, top_p=0.5), "top_p", "invalid_value"),
    ],
)
async def test_completion_request_is_refused_by_field(
    gateway: httpx.AsyncClient, body: Any, param: str | None, code: str
) -> None:
    assert_refused(await gateway.post(COMPLETIONS, json=body), 400, param, code)


@pytest.mark.parametrize(
    ("parameter", "neutral", "asking"),
    [
        ("response_format", {"type": "text"}, {"type": "json_object"}),
        ("tools", [], [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "none", "auto"),
        ("parallel_tool_calls", True, 1),
        ("functions", [], [{"name": "f"}]),
        ("function_call", "none", "auto"),
        ("modalities", ["text"], ["text", "audio"]),
        ("audio", None, {"voice": "alloy", "format": "mp3"}),
        ("prediction", None, {"type": "content", "content": "x"}),
        ("reasoning_effort", "none", "high"),
        ("verbosity", "medium", "low"),
        ("web_search_options", None, {}),
        ("moderation", None, {"model": "m"}),
        ("store", False, True),
        ("store", False, 0),
        ("metadata", {}, {"a": "b"}),
        ("service_tier", "auto", "flex"),
        ("prompt_cache_key", None, "k"),
        ("prompt_cache_retention", "in_memory", "24h"),
        ("prompt_cache_options", {"mode": "implicit"}, {"mode": "explicit"}),
    ],
)
async def test_parameter_that_is_not_supported_is_accepted_only_when_it_asks_for_nothing(
    gateway: httpx.AsyncClient, parameter: str, neutral: Any, asking: Any
) -> None:
    for value in (None, neutral):
        response = await gateway.post(CHAT, json=chat(max_tokens=1, **{parameter: value}))
        assert response.status_code == 200, response.text
    refused = await gateway.post(CHAT, json=chat(max_tokens=1, **{parameter: asking}))
    assert parameter in assert_refused(refused, 400, parameter, "unsupported_parameter")


def test_every_parameter_of_openais_api_is_known() -> None:
    from openai.types import completion_create_params as completion_params
    from openai.types.chat import completion_create_params as chat_params

    for params, model in (
        (chat_params, ChatCompletionRequest),
        (completion_params, CompletionRequest),
    ):
        theirs = set(params.CompletionCreateParamsBase.__annotations__) | {"stream"}
        assert theirs <= set(model.model_fields), theirs - set(model.model_fields)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": 1e999}', "invalid_json"),
        (b'{"model": "\xff\xfe"}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"\x00\x01", "invalid_json"),
        ("{}".encode("utf-16"), "invalid_json"),
    ],
)
async def test_body_that_is_no_json_in_utf8_is_refused(
    gateway: httpx.AsyncClient, content: bytes, code: str
) -> None:
    for url in (CHAT, COMPLETIONS, "/tokenize", "/detokenize"):
        response = await gateway.post(url, content=content, headers=JSON)
        assert_refused(response, 400, None, code)


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
async def test_body_of_another_type_is_refused(
    gateway: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await gateway.post(CHAT, content=json.dumps(chat()), headers=headers)
    assert_refused(response, 415, "content-type", "unsupported_media_type")


async def test_empty_body_is_refused(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(CHAT, content=b"", headers=JSON)
    assert_refused(response, 400, None, "missing_required_parameter")


async def test_body_over_the_limit_is_refused_from_its_length_unread(
    open_gateway: OpenGateway,
) -> None:
    read = 0

    async def content() -> Any:
        nonlocal read
        for _ in range(1000):
            read += 1 << 10
            yield b" " * (1 << 10)

    async with open_gateway(max_body_bytes=4096) as client:
        declared = await client.post(
            CHAT, content=b" " * 4097, headers=JSON | {"content-length": "4097"}
        )
        assert_refused(declared, 413, None, "request_too_large")
        chunked = await client.post(CHAT, content=content(), headers=JSON)
        assert_refused(chunked, 413, None, "request_too_large")
        assert read < 1 << 20, "the whole body was read"
        fits = await client.post(CHAT, json=chat(max_tokens=1))
        assert fits.status_code == 200


async def test_unknown_model_is_404_with_the_known_ones(gateway: httpx.AsyncClient) -> None:
    for url, body in ((CHAT, chat(model="gpt-5")), (COMPLETIONS, completion(model="gpt-5"))):
        text = assert_refused(await gateway.post(url, json=body), 404, "model", "model_not_found")
        assert "'gpt-5'" in text
        assert "'toy'" in text


async def test_unknown_route_and_method_have_openais_shape(gateway: httpx.AsyncClient) -> None:
    assert_refused(await gateway.post("/v1/responses", json={}), 404, None, "not_found")
    assert_refused(await gateway.get("/v1/chat/completions/"), 404, None, "not_found")
    response = await gateway.get(CHAT)
    assert_refused(response, 405, None, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-timeout-ms", "soon"),
        ("x-timeout-ms", "0"),
        ("x-timeout-ms", "-5"),
        ("x-timeout-ms", "99999999999"),
        ("x-request-id", "two words"),
        ("x-request-id", "x" * 119),
    ],
)
async def test_header_with_a_bad_value_is_refused_by_name(
    gateway: httpx.AsyncClient, header: str, value: str
) -> None:
    response = await gateway.post(CHAT, json=chat(), headers={header: value})
    assert_refused(response, 400, header, "invalid_value")


async def test_refused_requests_reach_no_engine(open_gateway: OpenGateway) -> None:
    backend = ToyBackend()
    async with open_gateway(backend) as client:
        for body in (chat(n=1000), chat(nonsense=1), chat(store=True), chat(messages=[])):
            assert (await client.post(CHAT, json=body)).status_code == 400
        load = backend.load()
    assert load.num_finished == 0
    assert load.num_running == 0


async def test_text_of_the_request_is_not_in_the_error(gateway: httpx.AsyncClient) -> None:
    secret = "the colour of my door"
    response = await gateway.post(CHAT, json=chat(messages=[{"role": "user", "content": [secret]}]))
    assert response.status_code == 400
    assert secret not in response.text
