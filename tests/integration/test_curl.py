"""The commands of the README: plain `curl` completes, streams, counts tokens and sees errors."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.integration.conftest import HttpApi
from tests.tools import tool


def curl(http_api: HttpApi, path: str, body: Any = None, *options: str) -> tuple[int, str]:
    """Status and body of one request. A body that is not text is sent as JSON."""
    command = [tool("curl"), "--silent", "--show-error", "--no-buffer", "--noproxy", "*"]
    command += ["--max-time", "60", "--write-out", "\n%{http_code}", *options]
    data = None
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        command += ["--header", "content-type: application/json", "--data-binary", "@-"]
    result = subprocess.run(
        [*command, http_api.url + path], input=data, capture_output=True, check=True, timeout=90
    )
    text, _, status = result.stdout.decode().rpartition("\n")
    return int(status), text


def chat(http_api: HttpApi, **changes: Any) -> dict[str, Any]:
    return {
        "model": http_api.model,
        "messages": [{"role": "user", "content": "Who keeps the lamp?"}],
        "max_tokens": 8,
        "temperature": 0,
        **changes,
    }


def test_chat_completes(http_api: HttpApi) -> None:
    status, text = curl(http_api, "/v1/chat/completions", chat(http_api))
    assert status == 200, text
    assert json.loads(text)["choices"][0]["message"]["content"]


def test_chat_streams_and_ends_with_done(http_api: HttpApi) -> None:
    whole = json.loads(curl(http_api, "/v1/chat/completions", chat(http_api))[1])
    status, text = curl(http_api, "/v1/chat/completions", chat(http_api, stream=True))
    assert status == 200
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert len(deltas) > 2
    streamed = "".join(delta.get("content", "") for delta in deltas)
    assert streamed == whole["choices"][0]["message"]["content"]


def test_models_health_ready_and_version(http_api: HttpApi) -> None:
    status, text = curl(http_api, "/v1/models")
    assert status == 200
    assert http_api.model in [model["id"] for model in json.loads(text)["data"]]
    for path in ("/health", "/ready", "/version", "/docs", "/openapi.json"):
        assert curl(http_api, path)[0] == 200, path
    services = json.loads(curl(http_api, "/ready")[1])["services"]
    assert {service["status"] for service in services.values()} == {"ready"}


def test_tokens_there_and_back(http_api: HttpApi) -> None:
    body = {"model": http_api.model, "prompt": "The lamp", "add_special_tokens": False}
    tokens = json.loads(curl(http_api, "/tokenize", body)[1])["tokens"]
    body = {"model": http_api.model, "tokens": tokens}
    assert json.loads(curl(http_api, "/detokenize", body)[1])["prompt"] == "The lamp"


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{", 400, None, "invalid_json"),
        (b'{"model": "\xff"}', 400, None, "invalid_json"),
        ({"nonsense": 1}, 400, "nonsense", "unknown_parameter"),
        ({"n": 1000}, 400, "n", "invalid_value"),
        ({"stop": ["s"] * 100}, 400, "stop", "invalid_value"),
        ({"messages": [{"role": "user", "content": ""}], "model": "no"}, 404, "model", None),
    ],
)
def test_bad_request_has_openais_shape(
    http_api: HttpApi, body: Any, status: int, param: str | None, code: str | None
) -> None:
    if isinstance(body, dict):
        body = chat(http_api) | body
    got, text = curl(http_api, "/v1/chat/completions", body)
    assert got == status, text
    error = json.loads(text)["error"]
    assert error["param"] == param
    if code is not None:
        assert error["code"] == code


def test_body_of_a_hundred_megabytes_is_refused(http_api: HttpApi) -> None:
    status, text = curl(http_api, "/v1/chat/completions", b" " * (100 << 20))
    assert status == 413
    assert json.loads(text)["error"]["code"] == "request_too_large"


def test_unknown_route_has_openais_shape(http_api: HttpApi) -> None:
    status, text = curl(http_api, "/v1/embeddings", {"model": "x", "input": "y"})
    assert status == 404
    assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}
