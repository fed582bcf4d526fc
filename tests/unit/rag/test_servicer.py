"""The servicer over scripted services: what only such services can show.

What holds over the real ones is in tests/contract.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orrery.v1 import rag_pb2 as pb
from orrery.v1 import retrieval_pb2
from orrery.v1.rag_pb2_grpc import RagServiceStub
from services.rag.config import LimitsConfig, RagConfig
from services.runtime.errors import CollectionNotFound
from tests.fakes.rag_server import CONFIG, RunningRag, rag_server
from tests.fakes.rag_services import FakeServices, passage, until
from tests.fakes.redis_server import redis_server

SHIP = passage("The captain of the Veloria is Tamir Osker.", document="ship", title="Veloria")
ASK = pb.AskRequest(question="Who commands the Veloria?", collection="docs")


@asynccontextmanager
async def serving(
    services: FakeServices, config: RagConfig = CONFIG, **settings: Any
) -> AsyncIterator[tuple[RagServiceStub, RunningRag]]:
    async with (
        rag_server(services, config, **settings) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield RagServiceStub(channel), server


def limited(**limits: int) -> RagConfig:
    return CONFIG.model_copy(update={"limits": LimitsConfig(**limits)})


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


async def test_stream_is_passages_then_text_then_one_result() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"])
    async with serving(services) as (stub, _):
        request = pb.AskRequest()
        request.CopyFrom(ASK)
        request.explain = True
        metadata = [("x-request-id", "r-7")]
        messages = [message async for message in stub.Ask(request, metadata=metadata)]
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds == ["passages", "delta", "result"]
    passages, result = messages[0].passages, messages[-1].result
    assert passages.hits[0] == SHIP.source
    assert (list(passages.used), passages.queries[0]) == ([0], ASK.question)
    assert (result.request_id, result.answer) == ("r-7", "Tamir Osker")
    (citation,) = result.citations
    assert (citation.document_id, citation.file_name) == ("ship", "ship.md")
    assert (citation.chunk_id, citation.document_title) == ("ship#0", "Veloria")
    assert citation.quote == SHIP.text
    assert result.timing.total_ns > result.timing.retrieval_ns > 0
    assert result.timing.rerank_ns == 5
    assert [stage.stage for stage in result.timeline][:2] == ["embed", "search"]


async def test_callers_search_options_reach_the_search_in_its_own_words() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"])
    options = pb.AskOptions(rerank=2)
    options.filter.comparison.field = "kind"
    options.fusion.dense_weight = 2.0
    options.diversity.SetInParent()
    async with serving(services) as (stub, _):
        request = pb.AskRequest(question="Who?", collection="docs", options=options)
        _ = [message async for message in stub.Ask(request)]
    rest = services.searches[0].rest
    assert rest == retrieval_pb2.SearchOptions(
        rerank=2,
        filter=options.filter,
        fusion=options.fusion,
        diversity=retrieval_pb2.DiversityOptions(),
    )


async def test_200_ms_with_a_slow_model_end_within_250_as_the_stages_deadline() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"], delays_s={"generate": 5.0})
    async with serving(services) as (stub, server):
        spent_s = []
        for _ in range(5):  # a machine that is busy may be late once
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [message async for message in stub.Ask(ASK, metadata=[("x-timeout-ms", "200")])]
            spent_s.append(time.monotonic() - began)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert error_info(caught.value).metadata["stage"] == "generate"
            assert "generate" in caught.value.details()
            assert not services.open_calls.total()
            assert server.pipeline.running.num_running == 0
        assert min(spent_s) < 0.25


async def test_load_tells_the_stage_and_cancelling_empties_it() -> None:
    services = FakeServices([SHIP], delays_s={"search": 30.0})
    async with serving(services) as (stub, _):
        call = stub.Ask(ASK)
        reading = asyncio.create_task(call.read())
        await until(lambda: services.open_calls["search"])
        load = await stub.GetLoad(pb.RagServiceGetLoadRequest())
        assert load.num_running == 1
        assert dict(load.num_running_by_stage) == {"search": 1}
        assert load.resident_bytes > 0
        assert not load.conversations_available
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: not services.open_calls.total())
        load = await stub.GetLoad(pb.RagServiceGetLoadRequest())
        assert (load.num_running, dict(load.num_running_by_stage)) == (0, {})
        assert load.num_questions_done == 1


async def test_one_question_too_many_is_told_when_to_come_back() -> None:
    services = FakeServices([SHIP], delays_s={"search": 30.0})
    async with serving(services, limited(max_running=1)) as (stub, _):
        first = stub.Ask(ASK)
        reading = asyncio.create_task(first.read())
        await until(lambda: services.open_calls["search"])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(ASK).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_info(caught.value).metadata["retry_after_s"] == "1"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_batches_take_their_share_of_what_is_answered_at_a_time() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"], delays_s={"search": 30.0})
    batch = pb.AskBatchRequest(questions=["Who?"] * 9, collection="docs")
    async with serving(services, limited(max_running=3, max_batch_concurrency=2)) as (stub, _):
        first = stub.AskBatch(batch)
        await until(lambda: services.open_calls["search"] == 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AskBatch(batch)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        reading = asyncio.create_task(stub.Ask(ASK).read())  # there is room for one
        await until(lambda: services.open_calls["search"] == 3)
        reading.cancel()
        first.cancel()
        await until(lambda: not services.open_calls.total())
        services.delays_s.clear()
        response = await stub.AskBatch(batch)
        assert [item.result.answer for item in response.items] == ["Tamir Osker"] * 9


async def test_batch_larger_than_what_is_answered_at_a_time_is_answered() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"])
    batch = pb.AskBatchRequest(questions=["Who?"] * 9, collection="docs")
    async with serving(services, limited(max_running=1)) as (stub, _):
        assert len((await stub.AskBatch(batch)).items) == 9


async def test_conversation_of_a_silent_store_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        async with serving(FakeServices(), redis_url=url) as (stub, _):
            calls = (
                (stub.GetConversation, pb.GetConversationRequest(conversation_id="c")),
                (stub.DeleteConversation, pb.DeleteConversationRequest(conversation_id="c")),
            )
            for call, request in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(request, metadata=[("x-timeout-ms", "100")])
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert error_info(caught.value).metadata["stage"] == "conversation"


async def test_error_names_its_field() -> None:
    services = FakeServices([SHIP])
    async with serving(services) as (stub, _):
        request = pb.AskRequest(question="Who?", collection="docs")
        request.options.hyde = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(request).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(caught.value).metadata["field"] == "options.hyde"
        request.options.ClearField("hyde")
        request.options.mode = 99
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(request).read()
        assert error_info(caught.value).metadata["field"] == "options.mode"


async def test_batch_answers_in_order_and_keeps_errors_to_their_questions() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"])
    async with serving(services) as (stub, _):
        response = await stub.AskBatch(
            pb.AskBatchRequest(questions=["Who?", " ", "Who commands it?"], collection="docs")
        )
    first, second, third = response.items
    assert (first.result.answer, third.result.answer) == ("Tamir Osker", "Tamir Osker")
    assert first.passages.queries[0] == "Who?"
    assert (second.error.reason, second.error.field) == ("INVALID_REQUEST", "question")
    assert not second.HasField("result")
    assert response.usage.completion_tokens == 4


async def test_batch_runs_so_many_questions_at_a_time() -> None:
    services = FakeServices([SHIP], ["Tamir Osker"], delays_s={"search": 0.01})
    most = 0
    async with serving(services, limited(max_batch_concurrency=2)) as (stub, server):
        batch = pb.AskBatchRequest(questions=["Who?"] * 6, collection="docs")
        task = asyncio.ensure_future(stub.AskBatch(batch))
        while not task.done():
            most = max(most, server.pipeline.running.num_running)
            await asyncio.sleep(0.001)
        assert len((await task).items) == 6
    assert most == 2


@pytest.mark.parametrize("count", [0, 257])
async def test_batch_of_the_wrong_size_is_refused(count: int) -> None:
    async with serving(FakeServices()) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AskBatch(pb.AskBatchRequest(questions=["?"] * count, collection="docs"))
    assert error_info(caught.value).metadata["field"] == "questions"


async def test_batch_whose_options_are_wrong_is_refused_as_a_whole() -> None:
    async with serving(FakeServices()) as (stub, _):
        request = pb.AskBatchRequest(questions=["Who?"], collection="docs", model="other")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AskBatch(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        request = pb.AskBatchRequest(questions=["Who?"], collection="docs")
        request.options.k = 1_000_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.AskBatch(request)
        assert error_info(caught.value).metadata["field"] == "options.k"


async def test_batch_item_has_the_error_of_the_service_that_failed() -> None:
    services = FakeServices([SHIP], errors={"search": CollectionNotFound("gone", field="x")})
    async with serving(services) as (stub, _):
        response = await stub.AskBatch(pb.AskBatchRequest(questions=["Who?"], collection="docs"))
    (item,) = response.items
    assert (item.error.reason, item.error.field) == ("COLLECTION_NOT_FOUND", "x")


async def test_conversation_is_kept_read_and_forgotten(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        async with serving(
            FakeServices([SHIP], ["Tamir Osker"]), redis_url=redis.url, api_keys=("k1", "k2")
        ) as (stub, _):
            mine = [("authorization", "Bearer k1")]
            request = pb.AskRequest(question="Who?", collection="docs", conversation_id="c-1")
            messages = [message async for message in stub.Ask(request, metadata=mine)]
            assert messages[-1].result.turn_saved
            assert messages[-1].result.conversation_id == "c-1"
            get = pb.GetConversationRequest(conversation_id="c-1")
            found = await stub.GetConversation(get, metadata=mine)
            assert [(turn.question, turn.answer) for turn in found.turns] == [
                ("Who?", "Tamir Osker")
            ]
            assert found.ttl_s > 0
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetConversation(get, metadata=[("authorization", "Bearer k2")])
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            load = await stub.GetLoad(pb.RagServiceGetLoadRequest(), metadata=mine)
            assert load.conversations_available
            delete = pb.DeleteConversationRequest(conversation_id="c-1")
            await stub.DeleteConversation(delete, metadata=mine)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.DeleteConversation(delete, metadata=mine)
            assert error_info(caught.value).reason == "RESOURCE_NOT_FOUND"


async def test_conversation_id_that_is_none_is_refused() -> None:
    async with serving(FakeServices()) as (stub, _):
        for call in (
            stub.GetConversation(pb.GetConversationRequest(conversation_id="../x")),
            stub.DeleteConversation(pb.DeleteConversationRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert error_info(caught.value).metadata["field"] == "conversation_id"


async def test_metrics_count_outcomes_stages_and_citations() -> None:
    async with serving(FakeServices([SHIP], ["Tamir Osker"])) as (stub, server):
        _ = [message async for message in stub.Ask(ASK)]
        read = server.registry.collector.get_sample_value
        labels = {"service": "rag", "model": "llama"}
        assert read("orrery_rag_questions_total", {**labels, "outcome": "answered"}) == 1
        assert read("orrery_rag_questions_total", {**labels, "outcome": "failed_internal"}) == 0
        assert read("orrery_rag_citations_total", labels) == 1
        assert read("orrery_rag_num_running", labels) == 0
        assert read("orrery_queue_usage_perc", {**labels, "queue": "questions"}) == 0
        assert read("orrery_redis_available", labels) is None  # there is none that could be away
        assert read("orrery_rag_stage_seconds_count", {**labels, "stage": "generate"}) == 1


async def test_draining_service_is_not_ready_and_refuses() -> None:
    async with (
        serving(FakeServices([SHIP], ["Tamir Osker"])) as (stub, server),
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        question = health_pb2.HealthCheckRequest()
        assert (await health.Check(question)).status == health_pb2.HealthCheckResponse.SERVING
        await server.servicer.close()
        assert (await health.Check(question)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Ask(ASK).read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_bytes_that_are_no_message_are_refused() -> None:
    async with (
        serving(FakeServices()) as (_, server),
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        call = channel.unary_stream("/orrery.v1.RagService/Ask")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\x0a\x02\xff\xff").read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
