"""`/v1/chat/completions` in process: whole and streamed answers say the same."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.toy_backend import ToyBackend, ToySettings
from tests.unit.gateway.conftest import OpenGateway
from tests.unit.gateway.sse_client import DONE, events_of, text_of

URL = "/v1/chat/completions"


def body(**changes: Any) -> dict[str, Any]:
    return {
        "model": "toy",
        "messages": [{"role": "user", "content": "Who keeps the lamp?"}],
        "max_completion_tokens": 12,
        "temperature": 0,
        **changes,
    }


async def stream(client: httpx.AsyncClient, **changes: Any) -> list[Any]:
    response = await client.post(URL, json=body(stream=True, **changes))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events_of(response.text)


async def test_answer_is_openais_chat_completion(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(URL, json=body())
    answer = ChatCompletion.model_validate(response.json(), strict=True)
    assert answer.object == "chat.completion"
    assert answer.model == "toy"
    assert answer.id == f"chatcmpl-{response.headers['x-request-id']}"
    assert answer.system_fingerprint == "fp_000000000000"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert len(choice.message.content or "") == 12  # the toy's tokens are characters
    assert choice.finish_reason == "length"
    assert choice.logprobs is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_stream_has_role_then_text_then_reason_then_done(gateway: httpx.AsyncClient) -> None:
    whole = (await gateway.post(URL, json=body())).json()
    *chunks, done = await stream(gateway)
    assert done == DONE
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert "usage" not in chunk
    first, last = chunks[0]["choices"][0], chunks[-1]["choices"][0]
    assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert last["delta"] == {}
    assert last["finish_reason"] == "length"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]


async def test_stream_with_usage_ends_with_a_chunk_without_choices(
    gateway: httpx.AsyncClient,
) -> None:
    whole = (await gateway.post(URL, json=body())).json()
    *chunks, usage, done = await stream(gateway, stream_options={"include_usage": True})
    assert done == DONE
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]


async def test_n_choices_are_told_apart_by_index(gateway: httpx.AsyncClient) -> None:
    settings = {"n": 3, "temperature": 1, "seed": 7}
    whole = (await gateway.post(URL, json=body(**settings))).json()
    chunks = await stream(gateway, **settings)
    texts = [choice["message"]["content"] for choice in whole["choices"]]
    assert len(set(texts)) > 1
    assert [text_of(chunks, index) for index in range(3)] == texts
    roles = [c for c in chunks[:-1] if c["choices"][0]["delta"].get("role") == "assistant"]
    assert len(roles) == 3


async def test_stop_string_ends_the_text_before_it(gateway: httpx.AsyncClient) -> None:
    for stop in ("the", ["tower", "the"]):
        settings = {"stop": stop, "max_completion_tokens": 200}
        choice = (await gateway.post(URL, json=body(**settings))).json()["choices"][0]
        chunks = await stream(gateway, **settings)
        assert choice["finish_reason"] == "stop"
        assert choice["stop_reason"] in (stop if isinstance(stop, list) else [stop])
        assert choice["stop_reason"] not in choice["message"]["content"]
        assert text_of(chunks) == choice["message"]["content"]
        assert chunks[-2]["choices"][0]["stop_reason"] == choice["stop_reason"]


async def test_logprobs_have_one_entry_per_token(gateway: httpx.AsyncClient) -> None:
    settings = {"logprobs": True, "top_logprobs": 3}
    choice = (await gateway.post(URL, json=body(**settings))).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 12
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    for entry in content:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 3
    chunks = await stream(gateway, **settings)
    streamed = [
        entry
        for chunk in chunks[:-1]
        if chunk["choices"][0]["logprobs"]
        for entry in chunk["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == content


async def test_developer_is_another_name_of_system(gateway: httpx.AsyncClient) -> None:
    answers = []
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        answers.append((await gateway.post(URL, json=body(messages=messages))).json())
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"] == answers[1]["usage"]


async def test_content_parts_are_joined_by_line_breaks(gateway: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "Who"}, {"type": "text", "text": "now?"}]
    in_parts, in_one = [
        (await gateway.post(URL, json=body(messages=[{"role": "user", "content": content}]))).json()
        for content in (parts, "Who\nnow?")
    ]
    assert in_parts["choices"] == in_one["choices"]
    assert in_parts["usage"] == in_one["usage"]


async def test_the_sdks_own_answer_is_accepted_as_history(gateway: httpx.AsyncClient) -> None:
    answer = ChatCompletion.model_validate((await gateway.post(URL, json=body())).json())
    history = [
        {"role": "user", "content": "Hi"},
        answer.choices[0].message.model_dump(),
        {"role": "user", "content": "And now?"},
    ]
    response = await gateway.post(URL, json=body(messages=history))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("seed", [-1, 0, 2**64 - 1, -(2**63)])
async def test_seed_of_any_sign_repeats_the_answer(gateway: httpx.AsyncClient, seed: int) -> None:
    settings = {"seed": seed, "temperature": 1.0}
    texts = [
        (await gateway.post(URL, json=body(**settings))).json()["choices"][0]["message"]["content"]
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


async def test_a_deadline_in_the_queue_is_504_and_not_an_answer(open_gateway: OpenGateway) -> None:
    backend = ToyBackend(ToySettings(max_running=0))
    async with open_gateway(backend) as client:
        for streamed in (False, True):
            response = await client.post(
                URL, json=body(stream=streamed), headers={"x-timeout-ms": "100"}
            )
            assert response.status_code == 504
            assert response.json()["error"]["code"] == "deadline_exceeded"
            assert response.headers["x-should-retry"] == "false"


async def test_a_deadline_while_decoding_ends_neither_form_as_length(
    open_gateway: OpenGateway,
) -> None:
    backend = ToyBackend(ToySettings(step_s=0.05))
    async with open_gateway(backend) as client:
        headers = {"x-timeout-ms": "400"}
        long = body(max_completion_tokens=200)
        whole = await client.post(URL, json=long, headers=headers)
        assert whole.status_code == 504
        streamed = await client.post(URL, json=long | {"stream": True}, headers=headers)
        assert streamed.status_code == 200
        events = events_of(streamed.text)
        assert len(events) > 2
        assert events[-1]["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_full_queue_is_429_with_retry_after(
    open_gateway: OpenGateway, streamed: bool
) -> None:
    backend = ToyBackend(ToySettings(max_waiting=0))
    async with open_gateway(backend) as client:
        response = await client.post(URL, json=body(stream=streamed))
    assert response.status_code == 429
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert response.headers["retry-after"] == "1"
    assert 0 < int(response.headers["retry-after-ms"]) <= 1000
