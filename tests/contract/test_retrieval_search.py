"""Searches: by meaning, by words, by both; filtered, reranked, diverse; refused by name."""

from __future__ import annotations

import asyncio
import math

import grpc
import numpy as np
import pytest

from orrery.v1 import embedding_pb2
from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import ServedRetrieval, ids, text, vectors, where
from tests.contract.served import refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FACTS = {
    "brennar": "The lighthouse of Brennar was built in 1872 by Ada Quill.",
    "kelm": "The observatory of Kelm opened in 1911 on a hill above the town.",
    "cats": "Cats sleep for most of the day and hunt at night.",
    "bread": "Bread is baked from flour, water, salt and yeast.",
    "rail": "The railway between Brennar and Kelm was closed in 1964.",
}


async def facts(retrieval: ServedRetrieval) -> tuple[str, str]:
    """A collection of five documents, and the token of the last."""
    name = await retrieval.collection()
    documents = [
        text(key, words, length=len(words), town=key in ("brennar", "kelm"), letters=[key[0], "z"])
        for key, words in FACTS.items()
    ]
    return name, await retrieval.put(name, documents)


async def plane(retrieval: ServedRetrieval) -> tuple[str, str]:
    """Forty vectors at growing angles from (1, 0, 0, 0)."""
    name = await retrieval.vectors_collection()
    angles = [math.pi * number / 40 for number in range(40)]
    documents = [
        vectors(f"d{n:02}", [math.cos(a), math.sin(a), 0, 0], n=n) for n, a in enumerate(angles)
    ]
    return name, await retrieval.put(name, documents)


@pytest.mark.parametrize("mode", [pb.SEARCH_MODE_UNSPECIFIED, pb.SEARCH_MODE_DENSE])
async def test_question_finds_the_passage_that_answers_it(
    retrieval: ServedRetrieval, mode: int
) -> None:
    name, token = await facts(retrieval)
    hits = await retrieval.search(name, token, text="who constructed the light tower?", mode=mode)
    assert hits[0].chunk.document_id == "brennar"
    assert hits[0].chunk.text == FACTS["brennar"]
    assert hits[0].dense_rank == 1
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_load_counts_the_searches(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    before = await retrieval.load()
    for mode in (pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_SPARSE):
        await retrieval.search(name, token, text="railway", mode=mode)
    after = await retrieval.load()
    assert after.process_id == before.process_id
    assert after.num_searches_done == before.num_searches_done + 2


async def test_words_alone_find_only_what_has_them(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    hits = await retrieval.search(name, token, text="closed railways", mode=pb.SEARCH_MODE_SPARSE)
    assert ids(hits) == ["rail#0"]
    assert hits[0].score == hits[0].sparse_score > 0
    assert not hits[0].HasField("dense_score")


async def test_hybrid_scores_are_reciprocal_ranks(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    fusion = pb.FusionOptions(dense_weight=2, sparse_weight=0.5, rrf_k=10)
    for hit in await retrieval.search(name, token, text="lighthouse of Brennar", fusion=fusion):
        expected = 2 / (10 + hit.dense_rank) if hit.dense_rank else 0.0
        expected += 0.5 / (10 + hit.sparse_rank) if hit.sparse_rank else 0.0
        assert hit.score == pytest.approx(expected)
        assert hit.HasField("dense_score")


async def test_dense_search_equals_brute_force(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection(16)
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((200, 16)).astype(np.float32)
    token = await retrieval.put(name, [vectors(f"d{n:03}", row) for n, row in enumerate(rows)])
    query = rng.standard_normal(16).astype(np.float32)
    hits = await retrieval.search(name, token, vector=query, k=20)
    scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    best = np.argsort(-scores)[:20]
    assert ids(hits) == [f"d{n:03}#0" for n in best]
    assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=1e-5)


async def test_filters_hold_inside_the_search(retrieval: ServedRetrieval) -> None:
    name, token = await plane(retrieval)
    last = await retrieval.search(
        name, token, vector=[1, 0, 0, 0], k=3, filter=where("n", "GTE", 35)
    )
    assert ids(last) == ["d35#0", "d36#0", "d37#0"]
    either = pb.Filter(any_of=pb.Filters(filters=[where("n", "EQ", 9), where("n", "EQ", 4)]))
    unless = pb.Filter(**{"not": where("n", "IN", 4, 5)})
    both = pb.Filter(all_of=pb.Filters(filters=[either, unless]))
    assert ids(await retrieval.search(name, token, vector=[1, 0, 0, 0], filter=both)) == ["d09#0"]


async def test_filters_compare_every_type(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)

    async def found(condition: pb.Filter) -> set[str]:
        hits = await retrieval.search(name, token, text="a town", filter=condition)
        return {hit.chunk.document_id for hit in hits}

    assert await found(where("town", "EQ", True)) == {"brennar", "kelm"}
    assert await found(where("letters", "EQ", "c")) == {"cats"}
    assert await found(where("letters", "IN", "b", "r")) == {"brennar", "bread", "rail"}
    assert await found(where("length", "LT", 50)) == {"cats", "bread"}
    assert await found(where("document_id", "IN", "rail", "kelm")) == {"rail", "kelm"}
    assert await found(where("letters", "EXISTS")) == set(FACTS)


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        (where("nobody_has_it", "EQ", 1), "filter"),
        (where("length", "EQ", "long"), "filter"),
        (where("town", "GT", True), "options.filter.values"),
        (where("length", "IN"), "options.filter.values"),
        (where("length", "EQ", 1, 2), "options.filter.values"),
        (where("length", "IN", 1, "a"), "options.filter.values"),
        (where("length", "EXISTS", 1), "options.filter.values"),
        (where("", "EQ", 1), "options.filter.field"),
        (pb.Filter(), "options.filter"),
        (pb.Filter(all_of=pb.Filters()), "options.filter.all_of"),
        (pb.Filter(comparison=pb.Comparison(field="a")), "options.filter.operator"),
    ],
)
async def test_filter_that_cannot_hold_is_refused_by_name(
    retrieval: ServedRetrieval, condition: pb.Filter, field: str
) -> None:
    name, token = await facts(retrieval)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.search(name, token, text="words", filter=condition)
    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (INVALID, "INVALID_REQUEST")
    assert refused.field is not None
    assert refused.field.removeprefix("options.").startswith(field.removeprefix("options."))


async def test_filter_that_is_too_deep_is_refused(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    condition = where("length", "GT", 1)
    for _ in range(30):
        condition = pb.Filter(**{"not": condition})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.search(name, token, text="words", filter=condition)
    assert refusal(caught.value).field == "options"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"k": 0}, "options.k"),
        ({"k": 1_000_000}, "options.k"),
        ({"k": 10, "num_candidates": 5}, "options.num_candidates"),
        ({"num_candidates": 1_000_000}, "options.num_candidates"),
        ({"max_per_document": 0}, "options.max_per_document"),
        ({"min_score": float("nan")}, "options.min_score"),
        ({"fusion": pb.FusionOptions(rrf_k=0)}, "options.fusion.rrf_k"),
        ({"fusion": pb.FusionOptions(dense_weight=-1)}, "options.fusion.dense_weight"),
        ({"fusion": pb.FusionOptions(dense_weight=0, sparse_weight=0)}, "options.fusion"),
        ({"diversity": pb.DiversityOptions(**{"lambda": 1.5})}, "options.diversity.lambda"),
        ({"mode": 77}, "options.mode"),
        ({"rerank": 77}, "options.rerank"),
        ({"k": 900, "rerank": embedding_pb2.RERANK_METHOD_BI_ENCODER}, "options.k"),
        ({"text": ""}, "query"),
        ({"text": "  "}, "query.text"),
        ({"text": "x" * 40_000}, "query.text"),
        ({"vector": [1.0, 2.0]}, "query.vector"),
        ({"vector": [0.0] * 384}, "query.vector"),
        ({"vector": [float("inf")] * 384}, "query.vector"),
        ({"text": "", "vector": [1.0] * 384, "mode": pb.SEARCH_MODE_HYBRID}, "query.text"),
        ({"vector": [1.0] * 384, "mode": pb.SEARCH_MODE_SPARSE}, "query.vector"),
    ],
)
async def test_search_that_cannot_be_is_refused_by_name(
    retrieval: ServedRetrieval, fields: dict[str, object], field: str
) -> None:
    name = await retrieval.collection()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.search(name, **{"text": "words", **fields})
    refused = refusal(caught.value)
    assert (refused.code, refused.field) == (INVALID, field)


async def test_collection_without_embedding_is_searched_by_vector_or_words(
    retrieval: ServedRetrieval,
) -> None:
    name, token = await plane(retrieval)
    by_words = await retrieval.search(name, token, text="d07")
    assert ids(by_words) == ["d07#0"]
    both = await retrieval.search(name, token, text="d07", vector=[1, 0, 0, 0], k=2)
    assert set(ids(both)) == {"d00#0", "d07#0"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.search(name, token, text="d07", mode=pb.SEARCH_MODE_DENSE)
    assert refusal(caught.value).field == "query.vector"


async def test_min_score_leaves_out_what_is_less_similar(retrieval: ServedRetrieval) -> None:
    name, token = await plane(retrieval)
    hits = await retrieval.search(name, token, vector=[1, 0, 0, 0], k=40, min_score=0.9)
    assert 0 < len(hits) < 40
    assert min(hit.dense_score for hit in hits) >= 0.9


async def test_diversity_chooses_what_is_unlike(retrieval: ServedRetrieval) -> None:
    name, token = await plane(retrieval)
    near = await retrieval.search(name, token, vector=[1, 0.3, 0, 0], k=4)
    spread = await retrieval.search(
        name,
        token,
        vector=[1, 0.3, 0, 0],
        k=4,
        num_candidates=40,
        diversity=pb.DiversityOptions(**{"lambda": 0.3}),
    )
    assert ids(spread)[0] == ids(near)[0]

    def width(hits: list[pb.Hit]) -> int:
        numbers = [int(hit.chunk.document_id[1:]) for hit in hits]
        return max(numbers) - min(numbers)

    assert width(spread) > width(near)


async def test_max_per_document_spares_room_for_others(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection()
    rows = [[1, 0, 0, number / 100] for number in range(10)]
    token = await retrieval.put(name, [vectors("a", *rows), vectors("b", [1, 1, 0, 0])])
    hits = await retrieval.search(name, token, vector=[1, 0, 0, 0], k=5, max_per_document=2)
    assert [hit.chunk.document_id for hit in hits] == ["a", "a", "b"]


async def test_rerank_orders_by_its_own_score(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    hits = await retrieval.search(
        name, token, text="Who built it?", rerank=embedding_pb2.RERANK_METHOD_BI_ENCODER, k=3
    )
    assert len(hits) == 3
    assert [hit.score for hit in hits] == [hit.rerank_score for hit in hits]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_texts_and_vectors_come_as_asked(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    [bare] = await retrieval.search(name, token, text="cats", k=1, include_text=False)
    assert (bare.chunk.text, list(bare.chunk.vector)) == ("", [])
    [full] = await retrieval.search(name, token, text="cats", k=1, include_vectors=True)
    assert full.chunk.text == FACTS["cats"]
    assert np.linalg.norm(full.chunk.vector) == pytest.approx(1.0, abs=1e-3)


async def test_answer_says_what_it_cost_and_where_the_time_went(
    retrieval: ServedRetrieval,
) -> None:
    name, token = await facts(retrieval)
    request = pb.SearchRequest(
        collection=name,
        query=pb.SearchQuery(text="when was it closed?"),
        options=pb.SearchOptions(rerank=embedding_pb2.RERANK_METHOD_BI_ENCODER),
        consistency_token=token,
        explain=True,
    )
    response = await retrieval.stub.Search(request, metadata=retrieval.metadata)
    stages = [stage.stage for stage in response.timeline]
    assert stages == ["wait", "embed", "search", "rerank", "select"]
    starts = [stage.start_ns for stage in response.timeline]
    assert starts == sorted(starts)
    assert response.usage.prompt_tokens > 10
    assert response.index_generation > 0
    timing = response.timing
    assert 0 < timing.rerank_ns < timing.total_ns
    assert 0 < timing.retrieval_ns < timing.total_ns
    plain = await retrieval.stub.Search(
        pb.SearchRequest(collection=name, query=pb.SearchQuery(text="a")),
        metadata=retrieval.metadata,
    )
    assert not plain.timeline


async def test_empty_collection_finds_nothing(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    assert await retrieval.search(name, text="anything") == []


async def test_batch_equals_single_searches_and_keeps_errors_apart(
    retrieval: ServedRetrieval,
) -> None:
    name, token = await facts(retrieval)
    questions = ["who built the lighthouse?", "", "when did the trains stop?", "what do cats do?"]
    request = pb.SearchBatchRequest(
        collection=name,
        queries=[pb.SearchQuery(text=question) for question in questions],
        options=pb.SearchOptions(k=3),
        consistency_token=token,
    )
    response = await retrieval.stub.SearchBatch(request, metadata=retrieval.metadata)
    assert len(response.results) == 4
    assert response.results[1].error.reason == "INVALID_REQUEST"
    assert response.results[1].error.field == "queries[1]"
    for number in (0, 2, 3):
        alone = await retrieval.search(name, token, text=questions[number], k=3)
        assert ids(response.results[number].hits) == ids(alone)
    assert response.usage.prompt_tokens > 0


async def test_batch_of_too_many_is_refused(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    for count in (0, 257):
        request = pb.SearchBatchRequest(collection=name, queries=[pb.SearchQuery(text="a")] * count)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await retrieval.stub.SearchBatch(request, metadata=retrieval.metadata)
        assert refusal(caught.value).field == "queries"


async def test_concurrent_searches_answer_each_its_own(retrieval: ServedRetrieval) -> None:
    name, token = await plane(retrieval)
    angles = [math.pi * number / 40 for number in range(40)]
    answers = await asyncio.gather(
        *(
            retrieval.search(name, token, vector=[math.cos(a), math.sin(a), 0, 0], k=1)
            for a in angles
        )
    )
    assert [ids(hits) for hits in answers] == [[f"d{n:02}#0"] for n in range(40)]


async def test_search_past_its_deadline_says_so(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    metadata = (*retrieval.metadata, ("x-timeout-ms", "1"))
    request = pb.SearchRequest(collection=name, query=pb.SearchQuery(text="words " * 200))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.stub.Search(request, metadata=metadata)
    assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"


async def test_token_of_another_log_waits_for_the_deadline_and_no_longer(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection()
    metadata = (*retrieval.metadata, ("x-timeout-ms", "200"))
    request = pb.GetCollectionRequest(name=name, consistency_token="99999999999999-0")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.stub.GetCollection(request, metadata=metadata)
    assert refusal(caught.value).reason in ("DEADLINE_EXCEEDED", "INVALID_REQUEST")


async def test_rebuild_and_snapshot_change_no_answer(retrieval: ServedRetrieval) -> None:
    name, token = await facts(retrieval)
    before = await retrieval.search(name, token, text="the lighthouse")
    rebuilt = await retrieval.stub.Rebuild(
        pb.RebuildRequest(collection=name), metadata=retrieval.metadata
    )
    assert rebuilt.collection.num_segments == 1
    snapshot = await retrieval.stub.Snapshot(pb.SnapshotRequest(), metadata=retrieval.metadata)
    assert snapshot.num_chunks >= len(FACTS)
    assert snapshot.log_position
    after = await retrieval.search(name, token, text="the lighthouse")
    assert ids(after) == ids(before)
    assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before])
