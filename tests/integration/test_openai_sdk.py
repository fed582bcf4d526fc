"""The official `openai` client completes, streams and fails as it does against OpenAI itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.integration.conftest import HttpApi

MESSAGES: Any = [{"role": "user", "content": "Who keeps the lamp?"}]
NUM_TOKENS = 8


@pytest.fixture
def client(http_api: HttpApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=http_api.base_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(http_api: HttpApi) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=http_api.base_url, api_key="unused", max_retries=0
    ) as client:
        yield client


@pytest.fixture
def settings(http_api: HttpApi) -> dict[str, Any]:
    return {"model": http_api.model, "temperature": 0, "max_tokens": NUM_TOKENS}


def ask(client: openai.OpenAI, settings: dict[str, Any], **changes: Any) -> Any:
    return client.chat.completions.create(messages=MESSAGES, **(settings | changes))


def test_chat_completes(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    answer = ask(client, settings)
    (choice,) = answer.choices
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= answer.usage.completion_tokens <= NUM_TOKENS
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint.startswith("fp_")
    assert answer.id == f"chatcmpl-{answer._request_id}"


def test_chat_streams_what_it_completes(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    whole = ask(client, settings)
    with ask(client, settings, stream=True, stream_options={"include_usage": True}) as stream:
        *chunks, usage = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens


def test_the_sdks_stream_helper_gathers_the_answer(
    client: openai.OpenAI, settings: dict[str, Any]
) -> None:
    whole = ask(client, settings)
    with client.chat.completions.stream(messages=MESSAGES, **settings) as stream:
        for _ in stream:
            pass
        gathered = stream.current_completion_snapshot  # the final one refuses to be cut short
    assert gathered.choices[0].message.content == whole.choices[0].message.content


async def test_async_chat_completes_and_streams(
    async_client: openai.AsyncOpenAI, settings: dict[str, Any]
) -> None:
    whole = await async_client.chat.completions.create(messages=MESSAGES, **settings)
    stream = await async_client.chat.completions.create(messages=MESSAGES, stream=True, **settings)
    async with stream:
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content


def test_completion_completes_and_streams(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    whole = client.completions.create(prompt="The lamp", **settings)
    with client.completions.create(prompt="The lamp", stream=True, **settings) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == whole.choices[0].text
    assert whole.choices[0].finish_reason in ("stop", "length")


async def test_async_completion_completes_and_streams(
    async_client: openai.AsyncOpenAI, settings: dict[str, Any]
) -> None:
    whole = await async_client.completions.create(prompt="The lamp", **settings)
    stream = await async_client.completions.create(prompt="The lamp", stream=True, **settings)
    async with stream:
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == whole.choices[0].text


def test_many_prompts_and_choices(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    answer = client.completions.create(
        prompt=["The lamp", "A ship"], n=2, **(settings | {"temperature": 1, "seed": 5})
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_chat_logprobs(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    answer = ask(client, settings, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for entry in content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob <= 0
        # Greedy: the chosen token is the most likely one.
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob, abs=1e-4)


def test_completion_logprobs_with_echo(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    answer = client.completions.create(prompt="The lamp", echo=True, logprobs=2, **settings)
    choice = answer.choices[0]
    assert choice.text.startswith("The lamp")
    logprobs: Any = choice.logprobs
    num_tokens = answer.usage.total_tokens if answer.usage else 0
    assert len(logprobs.tokens) == num_tokens
    assert logprobs.token_logprobs[0] is None
    for token, offset in zip(logprobs.tokens[1:], logprobs.text_offset[1:], strict=True):
        assert choice.text.startswith(token, offset) or offset >= len(choice.text.rstrip())


def test_stop_string_ends_the_text(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    text = ask(client, settings).choices[0].message.content
    stop = text.strip()[-1]
    answer = ask(client, settings, stop=[stop])
    assert stop not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_same_seed_same_answer(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    answers = [ask(client, settings, temperature=1.0, seed=17) for _ in range(2)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_extra_parameters_reach_the_engine(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    forced = ask(client, settings, temperature=1.0, seed=1, extra_body={"top_k": 1})
    greedy = ask(client, settings)
    assert forced.usage.completion_tokens <= NUM_TOKENS
    assert greedy.usage.completion_tokens <= NUM_TOKENS
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, settings, extra_body={"min_p": 2.0})
    assert raised.value.param == "min_p"


def test_models_are_listed_and_retrieved(client: openai.OpenAI, http_api: HttpApi) -> None:
    names = [model.id for model in client.models.list()]
    assert http_api.model in names
    assert client.models.retrieve(http_api.model).id == http_api.model


def test_bad_request_names_the_parameter(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, settings, temperature=-1)
    assert (raised.value.param, raised.value.code) == ("temperature", "invalid_value")
    assert raised.value.request_id


def test_unsupported_parameter_is_refused_by_name(
    client: openai.OpenAI, settings: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, settings, response_format={"type": "json_object"})
    assert raised.value.param == "response_format"
    assert raised.value.code == "unsupported_parameter"


def test_prompt_over_the_context_has_openais_code(
    client: openai.OpenAI, settings: dict[str, Any]
) -> None:
    long: Any = [{"role": "user", "content": "lamp " * 3000}]
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(messages=long, **settings)
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.param == "messages"


def test_unknown_model_is_not_found(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        ask(client, settings, model="gpt-5")
    assert raised.value.code == "model_not_found"


def test_leaving_a_stream_early_leaves_the_server_well(
    client: openai.OpenAI, settings: dict[str, Any]
) -> None:
    for _ in range(3):
        with ask(client, settings, stream=True, max_tokens=200) as stream:
            next(iter(stream))
    assert ask(client, settings).choices[0].message.content


def test_deadline_is_an_error_and_never_a_short_answer(
    client: openai.OpenAI, settings: dict[str, Any]
) -> None:
    headers = {"x-timeout-ms": "1"}
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client, settings, max_tokens=200, extra_headers=headers)
    assert raised.value.status_code == 504
    assert raised.value.code == "deadline_exceeded"
