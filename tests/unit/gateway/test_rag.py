"""`/v1/rag`: answers, events, conversations; the RAG service is real, what it asks is scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import httpx
import pytest

from orrery.v1 import rag_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.runtime.errors import DeadlineExceeded
from tests.fakes.retrieval_gateway import ANSWER, PASSAGE
from tests.fakes.retrieval_gateway import QUESTION as TEXT
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

URL = "/v1/rag/ask"
QUESTION = {"collection": "docs", "question": TEXT}
DONE = "[DONE]"


def events_of(text: str) -> list[tuple[str | None, Any]]:
    """(name, data) of each event; the specification says: the last block may be cut off."""
    events: list[tuple[str | None, Any]] = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        events.append((fields.get("event"), data if data == DONE else json.loads(data)))
    return events


def test_answer_has_citations_passages_and_stages(http: httpx.Client) -> None:
    answer = http.post(URL, json=QUESTION | {"explain": True}).json()
    assert (answer["object"], answer["answer"], answer["abstention"]) == (
        "rag.answer",
        ANSWER,
        None,
    )
    (citation,) = answer["citations"]
    passage = answer["passages"][citation["passage"]]
    assert passage["text"] == PASSAGE
    assert citation["quote"] in PASSAGE
    assert PASSAGE[citation["source_start"] : citation["source_end"]] == citation["quote"]
    assert answer["answer"][citation["answer_start"] : citation["answer_end"]] == ANSWER
    assert (citation["document_id"], citation["line_start"]) == ("tower.md", 1)
    assert answer["used"] == [0]
    assert answer["queries"] == [QUESTION["question"]]
    assert answer["usage"]["completion_tokens"] > 0
    assert "generate" in {stage["stage"] for stage in answer["timeline"]}
    assert "timeline" not in http.post(URL, json=QUESTION).json()


def test_events_are_the_same_answer(http: httpx.Client) -> None:
    response = http.post(URL, json=QUESTION | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names[0] == "passages"
    assert names[-2:] == ["result", None]
    assert set(names[1:-2]) == {"delta"}
    assert events[-1][1] == DONE
    assert all(data["type"] == name for name, data in events[:-1])
    whole = http.post(URL, json=QUESTION).json()
    assert "".join(data["text"] for name, data in events if name == "delta") == whole["answer"]
    result = events[-2][1]
    for field in ("answer", "citations", "abstention", "usage", "model"):
        assert result[field] == whole[field]
    assert events[0][1]["passages"] == whole["passages"]


def test_many_questions_are_answered_in_their_order(http: httpx.Client) -> None:
    body = {"collection": "docs", "questions": [TEXT, " "]}
    first, blank = http.post(URL, json=body).json()["data"]
    assert (first["answer"], first["truncated"]) == (ANSWER, False)
    assert blank["error"]["code"] == "invalid_value"


def test_conversation_is_kept_read_and_forgotten(http: httpx.Client) -> None:
    for _ in range(2):
        answer = http.post(URL, json=QUESTION | {"conversation_id": "c1"}).json()
        assert (answer["conversation_id"], answer["turn_saved"]) == ("c1", True)
    conversation = http.get("/v1/rag/conversations/c1").json()
    assert [turn["answer"] for turn in conversation["turns"]] == [ANSWER, ANSWER]
    assert conversation["ttl_s"] > 0
    assert http.delete("/v1/rag/conversations/c1").json()["deleted"] is True
    gone = http.get("/v1/rag/conversations/c1")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "conversation_id")


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"question": None}, None, "invalid_value"),
        ({"question": ""}, "question", "invalid_value"),
        ({"collection": ""}, "collection", "invalid_value"),
        ({"k": 0}, "k", "invalid_value"),
        ({"k": 1_000_000}, "k", "invalid_value"),
        ({"num_samples": 0}, "num_samples", "invalid_value"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"mode": "loose"}, "mode", "invalid_value"),
        ({"hyde": True}, "hyde", "invalid_value"),  # the demo models' style cannot do it
        ({"chain_of_thought": True}, "chain_of_thought", "invalid_value"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"filter": {"type": "near"}}, "filter", "invalid_value"),
        ({"conversation_id": "a b"}, "conversation_id", "invalid_value"),
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"messages": []}, "messages", "unknown_parameter"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_wrong_question_is_refused_by_name(
    http: httpx.Client, changes: dict[str, Any], param: str | None, code: str, streamed: bool
) -> None:
    response = http.post(URL, json=QUESTION | changes | {"stream": streamed})
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert response.status_code == (404 if code == "model_not_found" else 400)


@pytest.mark.parametrize("parameter", ["stream", "explain", "conversation_id"])
def test_many_questions_refuse_what_only_one_can_have(http: httpx.Client, parameter: str) -> None:
    value = "c" if parameter == "conversation_id" else True
    body = {"collection": "docs", "questions": ["a"], parameter: value}
    response = http.post(URL, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, parameter)


def test_one_question_beside_many_is_refused(http: httpx.Client) -> None:
    response = http.post(URL, json=QUESTION | {"questions": ["a"]})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


async def test_options_reach_the_service(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream({"Ask": [pb.AskResponse(result=pb.AskResult(answer="x"))]})
    options = {
        "k": 3,
        "max_passages": 2,
        "search_mode": "sparse",
        "filter": {"type": "eq", "key": "year", "value": 1},
        "fusion": {"rrf_k": 5},
        "min_score": 0.5,
        "diversity": {"lambda": 0.25},
        "rerank": "bi_encoder",
        "mode": "open",
        "num_queries": 2,
        "hyde": True,
        "num_samples": 3,
        "chain_of_thought": True,
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 2**64 - 1,
    }
    async with open_scripted(upstream) as client:
        assert (await client.post(URL, json=QUESTION | options)).status_code == 200
    (request,) = upstream.requests("Ask")
    sent = request.options
    assert {descriptor.name for descriptor, _ in sent.ListFields()} == set(options)
    assert (sent.k, sent.seed, sent.mode) == (3, 2**64 - 1, pb.ANSWER_MODE_OPEN)
    assert sent.search_mode == retrieval_pb2.SEARCH_MODE_SPARSE
    assert getattr(sent.diversity, "lambda") == 0.25
    assert sent.filter.comparison.field == "year"


async def test_error_of_one_question_names_the_field_as_the_client_wrote_it(
    open_scripted: OpenScripted,
) -> None:
    field = "options.filter.all_of[0].field"
    error = {"reason": "INVALID_REQUEST", "message": f"{field}: no such field", "field": field}
    upstream = ScriptedUpstream(
        {
            "AskBatch": pb.AskBatchResponse(items=[{"error": error}]),
            "SearchBatch": retrieval_pb2.SearchBatchResponse(results=[{"error": error}]),
        }
    )
    async with open_scripted(upstream) as client:
        asked = await client.post(URL, json={"collection": "docs", "questions": ["a"]})
        found = await client.post("/v1/search", json={"collection": "docs", "queries": ["a"]})
    for item in (asked.json()["data"][0], found.json()["results"][0]):
        assert item["error"]["param"] == "filter.filters[0].key"
        assert item["error"]["message"].startswith("filter.filters[0].key: ")


async def test_failure_in_the_middle_is_an_event_and_the_end(open_scripted: OpenScripted) -> None:
    begun = pb.AskResponse(passages=pb.Passages(queries=["q"]))
    upstream = ScriptedUpstream({"Ask": [begun, DeadlineExceeded("too late", stage="generate")]})
    async with open_scripted(upstream) as client:
        streamed = await client.post(URL, json=QUESTION | {"stream": True})
        whole = await client.post(URL, json=QUESTION)
    (first, _), (name, data) = events_of(streamed.text)
    assert (streamed.status_code, first, name) == (200, "passages", "error")
    assert data["error"]["code"] == "deadline_exceeded"
    assert "generate" in data["error"]["message"]
    assert whole.status_code == 504
    assert upstream.num_open_streams == 0


async def test_stream_that_ends_without_a_result_is_an_error(open_scripted: OpenScripted) -> None:
    upstream = ScriptedUpstream({"Ask": [pb.AskResponse(passages=pb.Passages())]})
    async with open_scripted(upstream) as client:
        whole = await client.post(URL, json=QUESTION)
        streamed = await client.post(URL, json=QUESTION | {"stream": True})
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "dependency_down")
    (first, _), (last, data) = events_of(streamed.text)
    assert (first, last) == ("passages", "error")
    assert data["error"]["retry_after_s"] == 1.0  # there are no headers any more to tell it


@pytest.mark.parametrize("streamed", [False, True])
async def test_client_that_leaves_ends_the_question(
    open_scripted: OpenScripted, streamed: bool
) -> None:
    asked = asyncio.Event()

    def never(_: pb.AskRequest) -> Awaitable[pb.AskResponse]:
        asked.set()
        return asyncio.get_running_loop().create_future()

    upstream = ScriptedUpstream({"Ask": [never]})
    async with open_scripted(upstream) as client:
        call = asyncio.create_task(client.post(URL, json=QUESTION | {"stream": streamed}))
        await asyncio.wait_for(asked.wait(), 10)
        assert upstream.num_open_streams == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.wait_for(upstream.streams_closed.wait(), 10)
