"""A question over HTTP, whole and as events: passages, text, citations, a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.retrieval_gateway import ANSWER, PASSAGE, QUESTION
from tests.integration.conftest import RetrievalApi

COLLECTION = "rag-http"


@pytest.fixture
def client(retrieval_api: RetrievalApi) -> Iterator[httpx.Client]:
    """A client beside a collection with one document."""
    with httpx.Client(base_url=retrieval_api.base_url, timeout=60) as client:
        assert client.post("/collections", json={"name": COLLECTION}).status_code == 200
        documents = [{"id": "tower.md", "text": PASSAGE}]
        url = f"/collections/{COLLECTION}/documents"
        assert client.post(url, json={"documents": documents}).json()["counts"]["added"] == 1
        yield client
        client.delete(f"/collections/{COLLECTION}")


def ask(client: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"collection": COLLECTION, "question": QUESTION, **changes}
    response = client.post("/rag/ask", json=body)
    assert response.status_code == 200, response.text
    return response


def test_answer_comes_from_the_passage_and_says_so(client: httpx.Client) -> None:
    answer = ask(client, explain=True).json()
    assert answer["abstention"] is None
    assert ANSWER in answer["answer"]
    citation = answer["citations"][0]
    assert citation["document_id"] == "tower.md"
    assert ANSWER in citation["quote"]
    assert PASSAGE[citation["source_start"] : citation["source_end"]] == citation["quote"]
    assert {"search", "generate"} <= {stage["stage"] for stage in answer["timeline"]}


def test_events_begin_with_passages_and_end_with_the_result(client: httpx.Client) -> None:
    blocks = ask(client, stream=True).text.removesuffix("\n\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    events = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert events[0]["type"] == "passages"
    assert events[0]["passages"][0]["document_id"] == "tower.md"
    assert events[-1]["type"] == "result"
    assert {event["type"] for event in events[1:-1]} <= {"delta"}
    assert events[-1]["usage"]["completion_tokens"] > 0


def test_conversation_goes_on_over_http(client: httpx.Client) -> None:
    url = "/rag/conversations/rag-http"
    assert ask(client, conversation_id="rag-http").json()["turn_saved"] is True
    (turn,) = client.get(url).json()["turns"]
    assert turn["question"] == QUESTION
    assert client.delete(url).json()["deleted"] is True


def test_question_without_time_is_504(client: httpx.Client) -> None:
    response = client.post(
        "/rag/ask",
        json={"collection": COLLECTION, "question": QUESTION},
        headers={"x-timeout-ms": "1"},
    )
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
