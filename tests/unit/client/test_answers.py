"""Searches, embeddings and answers, with both clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import orrery
from orrery import where
from orrery.requests.rag import AskOptions
from orrery.requests.search import SearchOptions
from orrery.v1 import embedding_pb2, rag_pb2
from orrery.v1 import retrieval_pb2 as pb
from tests.unit.client.both_clients import Either
from tests.unit.client.fake_retrieval import FakePlatform

QUESTION = "Who commands the Veloria?"


@pytest.fixture(autouse=True)
def documents(platform: FakePlatform) -> None:
    platform.retrieval.make(
        "docs",
        veloria="The captain who commands the Veloria is Osker.",
        town="The town has a harbour.",
    )


async def test_search_sends_every_option(platform: FakePlatform, either: Either) -> None:
    found = await either.call(
        "search",
        "docs",
        "captain veloria",
        vector=[0.5, 1.0],
        k=3,
        mode="hybrid",
        filter=(where("year") >= 1900) & ~where("kind").in_(["ship"]),
        dense_weight=0.5,
        sparse_weight=2,
        rrf_k=60,
        num_candidates=40,
        min_score=0.1,
        diversity=0.7,
        rerank="bi_encoder",
        max_per_document=1,
        include_text=False,
        include_vectors=True,
        explain=True,
    )
    assert [hit.chunk.document_id for hit in found.hits] == ["veloria"]
    assert found.hits[0].sparse_score == found.hits[0].score == 2
    assert found.hits[0].dense_rank is None
    assert (found.hits[0].chunk.line_start, found.hits[0].chunk.page) == (1, None)
    request = platform.retrieval.calls("SearchRequest")[0]
    assert request.explain
    assert list(request.query.vector) == [0.5, 1.0]
    options = request.options
    assert (options.k, options.mode, options.num_candidates) == (3, pb.SEARCH_MODE_HYBRID, 40)
    assert options.fusion == pb.FusionOptions(dense_weight=0.5, sparse_weight=2, rrf_k=60)
    assert getattr(options.diversity, "lambda") == pytest.approx(0.7)
    assert options.rerank == embedding_pb2.RERANK_METHOD_BI_ENCODER
    assert options.HasField("include_text")
    year, kind = options.filter.all_of.filters
    assert year.comparison.operator == pb.FILTER_OPERATOR_GTE
    assert getattr(kind, "not").comparison.values[0].string_value == "ship"


def test_options_are_the_fields_of_the_contract() -> None:
    """A field added to a proto shows up here until the client passes it on."""
    fusion = {field.name for field in pb.FusionOptions.DESCRIPTOR.fields}
    for options, message in (
        (SearchOptions, pb.SearchOptions),
        (AskOptions, rag_pb2.AskOptions),
    ):
        fields = {field.name for field in message.DESCRIPTOR.fields}
        assert set(options.__annotations__) == fields - {"fusion"} | fusion


async def test_search_without_text_and_vector_is_refused(either: Either) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await either.call("search", "docs")
    assert caught.value.field == "query"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("mode", "psychic", orrery.InvalidRequestError),
        ("rerank", "dice", orrery.InvalidRequestError),
        ("k", -1, orrery.InvalidRequestError),
        ("k", "many", TypeError),
        ("filter", "year > 3", TypeError),
        ("colour", 1, TypeError),
    ],
)
@pytest.mark.parametrize("method", ["search", "ask"])
async def test_option_that_cannot_be_is_refused_by_name(
    either: Either, method: str, option: str, value: Any, kind: type[Exception]
) -> None:
    arguments = ("docs", "x") if method == "search" else ("x",)
    with pytest.raises(kind, match=option):
        await either.call(method, *arguments, **{option: value})


async def test_search_batch_has_errors_in_their_places(
    platform: FakePlatform, either: Either
) -> None:
    found = await either.call("search_batch", "docs", ["veloria", "fail", [1.0]], k=1)
    assert found.results[0][0].chunk.document_id == "veloria"
    assert isinstance(found.results[1], orrery.InvalidRequestError)
    assert found.results[2] == ()
    with pytest.raises(TypeError):
        await either.call("search_batch", "docs", "one text")


async def test_search_in_no_collection_is_an_error(either: Either) -> None:
    with pytest.raises(orrery.CollectionNotFoundError):
        await either.call("search", "nowhere", "x")


async def test_ask_returns_the_answer_with_its_citations(
    platform: FakePlatform, either: Either
) -> None:
    answer = await either.call(
        "ask",
        QUESTION,
        collection="docs",
        conversation="c",
        model="llama",
        explain=True,
        k=2,
        mode="open",
        search_mode="sparse",
        temperature=0,
        hyde=False,
    )
    assert (answer.text, answer.abstained, answer.conversation_id) == ("Osker", False, "c")
    (citation,) = answer.citations
    assert answer.text[citation.answer_start : citation.answer_end] == "Osker"
    assert (citation.document_id, citation.line_start, citation.page) == ("veloria", 1, None)
    assert answer.passages.hits[citation.passage].chunk.document_id == "veloria"
    assert [stage.stage for stage in answer.timeline] == ["search", "generate"]
    request = platform.rag.seen[0][1]
    assert (request.model, request.options.k) == ("llama", 2)
    assert request.options.mode == rag_pb2.ANSWER_MODE_OPEN
    assert request.options.search_mode == pb.SEARCH_MODE_SPARSE
    assert request.options.HasField("temperature")
    assert platform.rag.seen[0][2]["application"] == "rag"


async def test_ask_abstains(either: Either) -> None:
    answer = await either.call("ask", "What colour?", collection="docs")
    assert (answer.abstention, answer.citations) == ("no_passage", ())
    assert "do not say" in answer.text


async def test_ask_brings_the_token_of_the_clients_writes(
    platform: FakePlatform, either: Either
) -> None:
    await either.call("documents.upsert", "docs", [orrery.Document("a", "b")])
    await either.call("ask", QUESTION, collection="docs")
    assert platform.rag.seen[0][1].consistency_token == "1-0"


async def test_ask_streams_passages_then_text_then_the_answer(
    platform: FakePlatform, either: Either
) -> None:
    stream = await either.call("ask", QUESTION, collection="docs", stream=True)
    assert platform.rag.seen == []  # nothing is sent before the first event is asked for
    if isinstance(stream, orrery.AnswerStream):
        events = await asyncio.to_thread(list, stream)
        whole = stream.result()
    else:
        events = [event async for event in stream]
        whole = await stream.result()
    kinds = [type(event) for event in events]
    assert kinds == [orrery.Passages, orrery.AnswerDelta, orrery.AnswerDelta, orrery.Answer]
    assert "".join(e.text for e in events if isinstance(e, orrery.AnswerDelta)) == "Osker"
    assert whole == events[-1]
    assert whole.passages == events[0]


async def test_answer_without_its_end_is_a_lost_connection(
    platform: FakePlatform, either: Either
) -> None:
    platform.rag.cut_short = True
    with pytest.raises(orrery.ConnectionLostError):
        await either.call("ask", QUESTION, collection="docs")


async def test_ask_batch_has_errors_in_their_places(either: Either) -> None:
    batch = await either.call("ask_batch", [QUESTION, ""], collection="docs")
    assert batch.items[0].text == "Osker"
    assert isinstance(batch.items[1], orrery.InvalidRequestError)


async def test_conversations_are_read_and_forgotten(either: Either) -> None:
    conversation = await either.call("conversation", "known")
    assert conversation.turns == (orrery.ConversationTurn("q", "a", None),)
    with pytest.raises(orrery.ResourceNotFoundError):
        await either.call("conversation", "unknown")
    assert await either.call("delete_conversation", "known") is None
    assert (await either.call("rag_load")).num_running_by_stage == {"generate": 2, "search": 1}


async def test_embed_takes_one_text_texts_and_token_ids(
    platform: FakePlatform, either: Either
) -> None:
    one = await either.call("embed", "four", purpose="query", dimensions=2, application="mini")
    assert one.vectors == ((4.0, 0.5),)
    request, metadata = platform.embedding.seen[0][1:]
    assert request.purpose == embedding_pb2.EMBEDDING_PURPOSE_QUERY
    assert (request.dimensions, metadata["application"]) == (2, "mini")
    await either.call("embed", ["a", (1, 2)], truncate=True)
    request, metadata = platform.embedding.seen[1][1:]
    assert list(request.inputs[1].token_ids.ids) == [1, 2]
    assert metadata["application"] == "embedding"
    with pytest.raises(TypeError, match=r"inputs\[1\]"):
        await either.call("embed", ["a", 3])
    with pytest.raises(orrery.InvalidRequestError, match="purpose"):
        await either.call("embed", "a", purpose="fun")


async def test_rerank_orders_passages(either: Either) -> None:
    ranked = await either.call("rerank", "q", ["a", "long"], top_n=2, method="bi_encoder")
    assert [each.index for each in ranked.results] == [1, 0]
    assert ranked.method == "bi_encoder"
    assert (await either.call("embedding_model")).aliases == ("m",)
    assert (await either.call("embedding_load")).num_waiting_inputs == 4
