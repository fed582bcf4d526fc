"""`/v1/completions` in process: prompts in their four forms, echo, log-probabilities, streams."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from openai.types import Completion

from tests.fakes.toy_backend import BOS, ToyBackend, ToySettings
from tests.unit.gateway.conftest import OpenGateway
from tests.unit.gateway.sse_client import DONE, events_of, text_of

URL = "/v1/completions"


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "toy", "prompt": "Lamps", "max_tokens": 8, "temperature": 0, **changes}


async def complete(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await client.post(URL, json=body(**changes))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def stream(client: httpx.AsyncClient, **changes: Any) -> list[Any]:
    response = await client.post(URL, json=body(stream=True, **changes))
    assert response.status_code == 200, response.text
    return events_of(response.text)


async def test_answer_is_openais_completion(gateway: httpx.AsyncClient) -> None:
    answer = await complete(gateway)
    Completion.model_validate(answer, strict=True)
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["text"]) == 8


async def test_max_tokens_defaults_to_sixteen(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(URL, json={"model": "toy", "prompt": "Lamps"})
    assert response.json()["usage"]["completion_tokens"] == 16


async def test_the_four_forms_of_a_prompt_mean_the_same(gateway: httpx.AsyncClient) -> None:
    token_ids = [BOS, *b"Lamps"]
    texts = [
        [choice["text"] for choice in (await complete(gateway, prompt=prompt))["choices"]]
        for prompt in ("Lamps", ["Lamps"], token_ids, [token_ids])
    ]
    assert all(text == texts[0] for text in texts)


async def test_many_prompts_number_their_choices_in_order(gateway: httpx.AsyncClient) -> None:
    prompts = ["Lamps", "Ships at sea", "Towers"]
    settings = {"prompt": prompts, "n": 2, "temperature": 1, "seed": 3}
    whole = await complete(gateway, **settings)
    assert [choice["index"] for choice in whole["choices"]] == list(range(6))
    one_by_one = [
        choice["text"]
        for prompt in prompts
        for choice in (await complete(gateway, **(settings | {"prompt": prompt})))["choices"]
    ]
    assert [choice["text"] for choice in whole["choices"]] == one_by_one
    chunks = await stream(gateway, **settings, stream_options={"include_usage": True})
    assert [text_of(chunks, index) for index in range(6)] == one_by_one
    assert chunks[-2]["usage"] == whole["usage"]
    assert chunks[-1] == DONE


async def test_more_prompts_than_fit_at_once_all_stream(gateway: httpx.AsyncClient) -> None:
    prompts = [f"Lamp {number}" for number in range(48)]
    whole = await complete(gateway, prompt=prompts, max_tokens=3)
    chunks = await stream(gateway, prompt=prompts, max_tokens=3)
    assert [text_of(chunks, index) for index in range(48)] == [
        choice["text"] for choice in whole["choices"]
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_failing_prompt_fails_the_request(
    open_gateway: OpenGateway, streamed: bool
) -> None:
    backend = ToyBackend()
    backend.fails_on = "Ships"
    async with open_gateway(backend) as client:
        prompts = ["Ships", "Ships"] if streamed else ["Lamps", "Ships"]
        response = await client.post(URL, json=body(prompt=prompts, stream=streamed))
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["type"] == "server_error"
    assert "ZeroDivision" not in response.text
    assert "Traceback" not in response.text


async def test_too_many_prompts_are_refused_by_name(gateway: httpx.AsyncClient) -> None:
    for streamed in (False, True):
        response = await gateway.post(URL, json=body(prompt=["x"] * 257, stream=streamed))
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("prompt", ["Lamps", [BOS, *b"Lamps"]])
async def test_echo_with_logprobs_covers_prompt_and_completion(
    gateway: httpx.AsyncClient, prompt: Any
) -> None:
    settings = {"prompt": prompt, "echo": True, "logprobs": 2}
    choice = (await complete(gateway, **settings))["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("Lamps")
    assert logprobs["tokens"][0] == "<s>"
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value is not None for value in logprobs["token_logprobs"][1:])
    assert len({len(column) for column in logprobs.values()}) == 1
    spans = zip(logprobs["tokens"][1:], logprobs["text_offset"][1:], strict=True)
    for token, offset in spans:
        assert choice["text"].startswith(token, offset)
    *chunks, done = await stream(gateway, **settings)
    assert done == DONE
    assert text_of(chunks) == choice["text"]
    for column in logprobs:
        streamed = [v for chunk in chunks for v in chunk["choices"][0]["logprobs"][column]]
        assert streamed == logprobs[column]


async def test_echo_without_generating_returns_the_prompt(gateway: httpx.AsyncClient) -> None:
    choice = (await complete(gateway, echo=True, max_tokens=0))["choices"][0]
    assert choice["text"] == "Lamps"
    scored = (await complete(gateway, echo=True, max_tokens=0, logprobs=0))["choices"][0]
    assert len(scored["logprobs"]["tokens"]) == len("Lamps") + 1


async def test_nothing_to_generate_and_nothing_to_echo_is_refused(
    gateway: httpx.AsyncClient,
) -> None:
    response = await gateway.post(URL, json=body(max_tokens=0))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "max_tokens"


async def test_prompt_logprobs_come_per_choice(gateway: httpx.AsyncClient) -> None:
    choice = (await complete(gateway, prompt_logprobs=1))["choices"][0]
    assert choice["prompt_logprobs"][0] is None
    entry = choice["prompt_logprobs"][1][str(ord("L"))]
    assert entry == {"logprob": -0.25, "rank": 1, "decoded_token": "L"}


async def test_best_of_is_refused_in_a_stream(gateway: httpx.AsyncClient) -> None:
    response = await gateway.post(URL, json=body(stream=True, best_of=3))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "best_of"


async def test_a_deadline_ends_all_streams_of_a_request(open_gateway: OpenGateway) -> None:
    backend = ToyBackend(ToySettings(step_s=0.05))
    async with open_gateway(backend) as client:
        response = await client.post(
            URL,
            json=body(prompt=["Lamps", "Ships"], max_tokens=200, stream=True),
            headers={"x-timeout-ms": "300"},
        )
        assert events_of(response.text)[-1]["error"]["code"] == "deadline_exceeded"
        async with asyncio.timeout(10):
            while backend.load().num_running:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.01)
