"""`langchain-openai` works against the gateway as against OpenAI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

from tests.integration.conftest import HttpApi

MESSAGES = [SystemMessage("Be brief."), HumanMessage("Who keeps the lamp?")]
NUM_TOKENS = 8


@pytest_asyncio.fixture
async def settings(http_api: HttpApi) -> AsyncIterator[dict[str, Any]]:
    # Clients of our own, because LangChain closes none of its.
    with httpx.Client() as client:
        async with httpx.AsyncClient() as async_client:
            yield {
                "base_url": http_api.base_url,
                "api_key": "unused",
                "model": http_api.model,
                "temperature": 0,
                "max_tokens": NUM_TOKENS,
                "max_retries": 0,
                "http_client": client,
                "http_async_client": async_client,
            }


@pytest.fixture
def chat(settings: dict[str, Any]) -> ChatOpenAI:
    return ChatOpenAI(**settings)


async def test_chat_invokes(chat: ChatOpenAI) -> None:
    answer = chat.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= NUM_TOKENS
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


async def test_chat_streams_what_it_invokes(chat: ChatOpenAI) -> None:
    whole = chat.invoke(MESSAGES)
    chunks = list(chat.stream(MESSAGES, stream_usage=True))
    gathered = chunks[0]
    for chunk in chunks[1:]:
        gathered = gathered + chunk
    assert isinstance(gathered, AIMessageChunk)
    assert gathered.text == whole.text
    assert gathered.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert gathered.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


async def test_chat_invokes_and_streams_asynchronously(chat: ChatOpenAI) -> None:
    whole = await chat.ainvoke(MESSAGES)
    pieces = [chunk.text async for chunk in chat.astream(MESSAGES)]
    assert "".join(pieces) == whole.text


async def test_chat_batches(chat: ChatOpenAI) -> None:
    answers = await chat.abatch(["Who?", "Where?", "When?"])
    assert all(answer.text for answer in answers)


async def test_history_with_an_answer_is_accepted(chat: ChatOpenAI) -> None:
    answer = chat.invoke(MESSAGES)
    assert chat.invoke([*MESSAGES, answer, HumanMessage("And now?")]).text


async def test_completion_invokes(settings: dict[str, Any]) -> None:
    completion = OpenAI(**settings)
    text = completion.invoke("The lamp")
    assert text
    assert "".join(completion.stream("The lamp")) == text
