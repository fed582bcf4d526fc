"""Questions over the real services: embedding, retrieval and the demo LLaMA behind RAG."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from orrery.v1 import rag_pb2 as pb
from tests.contract import conftest, rag_served
from tests.contract.embedding_served import platform_target
from tests.contract.rag_served import ServedRag, file_document, stage_of, text_document
from tests.contract.served import refusal

SHIP = (
    "# Veloria\n\nThe Veloria was launched in 1874.\nThe captain of the Veloria is Tamir Osker.\n"
)
DOCUMENTS = (
    file_document("ships/veloria.md", SHIP),
    text_document("bramhaven", "Bramhaven", "Bramhaven has a population of 3416 people."),
    text_document("quellmoor", "Quellmoor", "Quellmoor has a population of 982 people."),
    text_document("sarn", "Sarn Ottick", "Sarn Ottick works as a glazier."),
)
WHO = "Who is the captain of the Veloria?"


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedRag]:
    """The application under test. After each test nothing may be left running in any service."""
    if request.param == "in-process":
        backend = request.getfixturevalue("native_backend")
        context = rag_served.in_process(tmp_path, backend, conftest.CONFIG)
    else:
        target = platform_target(lambda: request.getfixturevalue("platform"))
        context = rag_served.on_platform(target)
    async with context as application:
        yield application
        running = await application.wait_until_idle(limit_s=10.0)
        assert not any(running.values()), f"something still runs: {running}"


@pytest.fixture
async def ask(served: ServedRag) -> AsyncIterator[pb.AskRequest]:
    """A question of a collection that is filled, and dropped afterwards."""
    collection = f"rag-{uuid.uuid4().hex[:12]}"
    token = await served.fill(collection, DOCUMENTS)
    yield pb.AskRequest(question=WHO, collection=collection, consistency_token=token)
    await served.drop(collection)


def changed(request: pb.AskRequest, **fields: object) -> pb.AskRequest:
    """The same question with other fields."""
    copy = pb.AskRequest(**fields)
    merged = pb.AskRequest()
    merged.CopyFrom(request)
    for name in fields:
        merged.ClearField(name)
    merged.MergeFrom(copy)
    return merged


async def test_answer_comes_with_the_lines_that_say_it(
    served: ServedRag, ask: pb.AskRequest
) -> None:
    messages = await served.ask(changed(ask, explain=True))
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds[0] == "passages"
    assert kinds[-1] == "result"
    assert set(kinds[1:-1]) == {"delta"}
    passages, result = messages[0].passages, messages[-1].result
    assert result.answer == "Tamir Osker"
    assert "".join(message.delta.text for message in messages[1:-1]) == result.answer
    (citation,) = result.citations
    assert citation.document_id == "ships/veloria.md"
    assert citation.file_name.endswith("veloria.md")
    assert citation.quote == "The captain of the Veloria is Tamir Osker."
    assert SHIP[citation.source_start : citation.source_end] == citation.quote
    assert (citation.line_start, citation.line_end) == (4, 4)
    assert passages.hits[citation.passage].chunk.id == citation.chunk_id
    assert citation.passage in passages.used
    assert result.index_generation == passages.index_generation > 0
    assert result.usage.prompt_tokens > result.usage.completion_tokens > 0
    assert result.timing.total_ns > result.timing.retrieval_ns > 0
    assert result.timing.prefill_ns > 0
    assert result.timing.decode_ns > 0
    stages = [stage.stage for stage in result.timeline]
    assert [stage for stage in stages if "." not in stage] == [
        *("embed", "search", "pack", "generate", "cite"),
    ]
    assert [stage for stage in stages if stage.startswith("search.")]


@pytest.mark.parametrize(
    "question",
    ["What does Sarn Ottick dream of?", "Who is the captain of the Quorvane?"],
)
async def test_what_the_documents_do_not_say_is_not_answered(
    served: ServedRag, ask: pb.AskRequest, question: str
) -> None:
    result = await served.result(changed(ask, question=question))
    assert result.abstention != pb.ABSTENTION_REASON_UNSPECIFIED
    assert result.answer == "The documents do not say."
    assert not result.citations


async def test_passages_below_the_least_score_are_not_used(
    served: ServedRag, ask: pb.AskRequest
) -> None:
    options = pb.AskOptions(min_score=0.999)
    messages = await served.ask(changed(ask, options=options))
    assert not messages[0].passages.hits
    assert messages[-1].result.abstention == pb.ABSTENTION_REASON_NO_PASSAGE


async def test_filter_is_applied_in_the_search(served: ServedRag, ask: pb.AskRequest) -> None:
    options = pb.AskOptions()
    options.filter.comparison.field = "document_id"
    options.filter.comparison.operator = 1
    options.filter.comparison.values.add().string_value = "bramhaven"
    messages = await served.ask(changed(ask, options=options))
    assert {hit.chunk.document_id for hit in messages[0].passages.hits} <= {"bramhaven"}
    assert messages[-1].result.abstention != pb.ABSTENTION_REASON_UNSPECIFIED


async def test_samples_vote(served: ServedRag, ask: pb.AskRequest) -> None:
    options = pb.AskOptions(num_samples=5, seed=1)
    result = await served.result(changed(ask, options=options))
    assert result.answer == "Tamir Osker"
    assert result.agreement >= 0.6


async def test_conversation_goes_on(served: ServedRag, ask: pb.AskRequest) -> None:
    conversation = uuid.uuid4().hex
    first = await served.result(changed(ask, conversation_id=conversation))
    assert first.turn_saved
    follow_up = changed(ask, conversation_id=conversation, question="When was it launched?")
    messages = await served.ask(follow_up)
    assert list(messages[0].passages.queries) == [f"{WHO} When was it launched?"]
    assert messages[-1].result.citations[0].document_id == "ships/veloria.md"
    get = pb.GetConversationRequest(conversation_id=conversation)
    found = await served.stub.GetConversation(get, metadata=served.at("rag"))
    assert [turn.question for turn in found.turns] == [WHO, "When was it launched?"]
    delete = pb.DeleteConversationRequest(conversation_id=conversation)
    await served.stub.DeleteConversation(delete, metadata=served.at("rag"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.GetConversation(get, metadata=served.at("rag"))
    assert refusal(caught.value).reason == "RESOURCE_NOT_FOUND"


async def test_batch_answers_each_question(served: ServedRag, ask: pb.AskRequest) -> None:
    response = await served.stub.AskBatch(
        pb.AskBatchRequest(
            questions=[WHO, "", "Who is the captain of the Quorvane?"],
            collection=ask.collection,
            consistency_token=ask.consistency_token,
        ),
        metadata=served.at("rag"),
    )
    first, second, third = response.items
    assert first.result.answer == "Tamir Osker"
    assert second.error.field == "question"
    assert third.result.abstention != pb.ABSTENTION_REASON_UNSPECIFIED


REFUSED = (
    ({"collection": "no-such"}, "COLLECTION_NOT_FOUND", "collection"),
    ({"collection": ""}, "INVALID_REQUEST", "collection"),
    ({"question": ""}, "INVALID_REQUEST", "question"),
    ({"model": "no-such"}, "MODEL_NOT_FOUND", "model"),
    ({"conversation_id": "../x"}, "INVALID_REQUEST", "conversation_id"),
    ({"options": pb.AskOptions(k=1_000_000)}, "INVALID_REQUEST", "options.k"),
    ({"options": pb.AskOptions(hyde=True)}, "INVALID_REQUEST", "options.hyde"),
    ({"options": pb.AskOptions(search_mode=77)}, "INVALID_REQUEST", "options.search_mode"),
)


async def test_what_cannot_be_asked_is_refused_by_name(
    served: ServedRag, ask: pb.AskRequest
) -> None:
    for fields, reason, field in REFUSED:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.ask(changed(ask, **fields))
        refused = refusal(caught.value)
        assert refused.reason == reason, fields
        assert field is None or refused.field == field, fields


async def test_200_ms_with_a_busy_model_end_as_the_stages_deadline(
    served: ServedRag, ask: pb.AskRequest
) -> None:
    spent_s = []
    ask = changed(ask, options=pb.AskOptions(num_samples=2))
    async with served.busy_model():
        for _ in range(5):  # a machine that is busy may be late once
            metadata = (*served.at("rag"), ("x-timeout-ms", "200"))
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in served.stub.Ask(ask, metadata=metadata):
                    pass
            spent_s.append(time.monotonic() - began)
            assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"
            assert stage_of(caught.value) in ("embed", "search", "pack", "generate")
    assert min(spent_s) < 0.25
    running = await served.wait_until_idle(limit_s=2.0)
    assert not any(running.values()), running


async def test_questions_cut_at_random_leave_no_work_in_any_service(
    served: ServedRag, ask: pb.AskRequest
) -> None:
    rng = random.Random(9)

    async def cut() -> None:
        call = served.stub.Ask(ask, metadata=served.at("rag"))
        reading = asyncio.ensure_future(_drain(call))
        await asyncio.wait([reading], timeout=rng.uniform(0.0, 0.2))
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    await asyncio.gather(*(cut() for _ in range(60)))
    running = await served.wait_until_idle(limit_s=2.0)
    assert not any(running.values()), running
    assert (await served.result(ask)).answer == "Tamir Osker"


async def _drain(call: AsyncIterator[pb.AskResponse]) -> None:
    async for _ in call:
        pass
