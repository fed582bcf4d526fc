"""What a search does when its time is up, when it is given up, and when others are away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from orrery.v1 import embedding_pb2, file_pb2
from orrery.v1 import retrieval_pb2 as pb
from orrery.v1.file_pb2_grpc import FileServiceStub
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.retrieval.config import RequestLimits, RetrievalConfig, SearchConfig
from services.runtime.errors import DependencyDown
from tests.contract.retrieval_served import ids, text
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer
from tests.fakes.retrieval_server import retrieval_server
from tests.unit.retrieval.conftest import Site, site, until


def stage_of(error: grpc.aio.AioRpcError) -> str:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.metadata["stage"]


async def test_deadline_names_the_stage_that_was_at_work(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 30.0
    request = pb.SearchRequest(collection=name, query=pb.SearchQuery(text="words"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.client.stub.Search(request, metadata=(("x-timeout-ms", "150"),))
    assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"
    assert stage_of(caught.value) == "embed"


async def test_cancelled_search_leaves_no_work_anywhere(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 30.0
    request = pb.SearchRequest(collection=name, query=pb.SearchQuery(text="words"))
    calls = [alone.client.stub.Search(request) for _ in range(20)]
    await until(lambda: alone.embedding.num_running == 20)
    for call in calls:
        call.cancel()
    load = await alone.client.wait_until_idle(limit_s=5.0)
    assert (load.num_running, load.num_waiting_searches) == (0, 0)
    await until(lambda: alone.embedding.num_running == 0)


async def test_words_are_found_while_the_embedding_service_is_away(alone: Site) -> None:
    name = await alone.client.collection()
    token = await alone.client.put(name, [text("a", "some words"), text("b", "others")])
    alone.embedding.failure = DependencyDown("away")
    hits = await alone.client.search(name, token, text="words", mode=pb.SEARCH_MODE_SPARSE)
    assert ids(hits) == ["a#0"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.client.search(name, token, text="words")
    assert refusal(caught.value).code is grpc.StatusCode.UNAVAILABLE


async def test_batch_embeds_all_its_texts_in_one_call(alone: Site) -> None:
    name = await alone.client.collection()
    token = await alone.client.put(name, [text("a", "some words")])
    alone.embedding.delay_s = 0.05
    request = pb.SearchBatchRequest(
        collection=name,
        queries=[pb.SearchQuery(text=f"words {n}") for n in range(100)],
        consistency_token=token,
    )
    call = asyncio.ensure_future(alone.client.stub.SearchBatch(request))
    most = 0
    while not call.done():
        most = max(most, alone.embedding.num_running)
        await asyncio.sleep(0.002)
    response = await call
    assert most <= 2  # 64 texts in a call
    assert all(ids(result.hits) == ["a#0"] for result in response.results)


async def test_searches_beyond_the_queue_are_told_so(redis: RedisServer, tmp_path: Path) -> None:
    config = RetrievalConfig(search=SearchConfig(max_waiting=1, max_batch=1))
    async with site(redis.url, tmp_path / "data", config) as alone:
        name = await alone.client.collection()
        rows = [text(f"d{number}", "the same words again " * 20) for number in range(200)]
        token = await alone.client.put(name, rows)
        request = pb.SearchRequest(
            collection=name,
            query=pb.SearchQuery(text="the same words"),
            options=pb.SearchOptions(k=100),
            consistency_token=token,
        )
        outcomes = await asyncio.gather(
            *(alone.client.stub.Search(request) for _ in range(64)), return_exceptions=True
        )
        refused = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
        assert 0 < len(refused) < 64
        assert {refusal(error).reason for error in refused} == {"OVERLOADED"}


async def test_answer_that_could_not_be_sent_is_refused_by_name(
    redis: RedisServer, tmp_path: Path
) -> None:
    config = RetrievalConfig(limits=RequestLimits(max_response_bytes=50_000, max_batch_hits=100))
    async with site(redis.url, tmp_path / "data", config) as alone:
        name, stub = await alone.client.collection(), alone.client.stub
        rows = [text(f"d{number}", f"{number} words " * 80) for number in range(80)]
        token = await alone.client.put(name, rows)
        ids_ = [row.id for row in rows]
        query, many = pb.SearchQuery(text="words"), pb.SearchOptions(k=80)

        def search(**fields: object) -> object:
            return stub.Search(pb.SearchRequest(collection=name, query=query, **fields))

        def batch(number: int, k: int) -> object:
            options = pb.SearchOptions(k=k)
            return stub.SearchBatch(
                pb.SearchBatchRequest(collection=name, queries=[query] * number, options=options)
            )

        def get(number: int, **fields: object) -> object:
            return stub.Get(pb.GetRequest(collection=name, document_ids=ids_[:number], **fields))

        assert len((await search(consistency_token=token)).hits) == 10
        assert len((await search(options=pb.SearchOptions(k=80, include_text=False))).hits) == 80
        assert len((await batch(2, 10)).results) == 2
        assert len((await get(5, include_chunks=True)).documents) == 5
        for call, field in (
            (search(options=many), "options.k"),
            (batch(1, 80), "options.k"),
            (batch(3, 50), "options.k"),
            (get(80, include_chunks=True), "document_ids"),
            (get(1, include_vectors=True), "include_vectors"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert refusal(caught.value).field == field


async def test_passages_of_many_bytes_are_reranked_in_several_calls(alone: Site) -> None:
    name = await alone.client.collection()
    chunks = [pb.ChunkContent(text=f"word{n} " + "long " * 20_000) for n in range(25)]
    document = pb.Document(id="a", chunks=pb.ChunkContents(chunks=chunks))
    token = await alone.client.put(name, [document])
    hits = await alone.client.search(
        name,
        token,
        text="word7",
        rerank=embedding_pb2.RERANK_METHOD_BI_ENCODER,
        include_text=False,
    )
    assert hits[0].chunk.ordinal == 7
    assert [hit.score for hit in hits] == [hit.rerank_score for hit in hits]
    assert sum(alone.embedding.rerank_bytes) >= 25 * 100_000
    assert max(alone.embedding.rerank_bytes) <= 1 << 20


async def test_stages_and_batches_are_counted(alone: Site) -> None:
    name = await alone.client.collection()
    token = await alone.client.put(name, [text("a", "some words")])
    await alone.client.search(name, token, text="words")
    value = alone.server.registry.collector.get_sample_value
    labels = {"service": "retrieval", "model": ""}
    assert value("orrery_retrieval_documents_total", {**labels, "status": "added"}) == 1.0
    assert value("orrery_retrieval_chunks_written_total", labels) == 1.0
    assert value("orrery_retrieval_batch_size_count", labels) == 1.0
    for stage in ("embed", "search", "select"):
        stage_labels = {**labels, "stage": stage}
        assert value("orrery_retrieval_stage_seconds_count", stage_labels) == 1.0


async def test_caller_without_the_key_is_refused(redis: RedisServer, tmp_path: Path) -> None:
    async with (
        retrieval_server(redis.url, tmp_path / "data", api_keys=("secret",)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        key = (("authorization", "Bearer secret"),)
        stub, files = RetrievalServiceStub(channel), FileServiceStub(channel)
        for call in (
            stub.ListCollections(pb.ListCollectionsRequest()),
            files.ListFiles(file_pb2.ListFilesRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await stub.ListCollections(pb.ListCollectionsRequest(), metadata=key)
