"""The servicer over a toy backend: what only a backend that misbehaves on command can show.

What holds for every backend is in tests/contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from orrery.v1.generation_pb2_grpc import GenerationServiceStub
from services.generation.config import GenerationConfig, RequestLimitsConfig
from tests.fakes.generation_server import RunningServer, generation_server
from tests.fakes.toy_backend import ToyBackend, ToySettings


@asynccontextmanager
async def serving(
    backend: ToyBackend, **config: Any
) -> AsyncIterator[tuple[GenerationServiceStub, RunningServer]]:
    settings = GenerationConfig(model_name="toy", model_path="unused", **config)
    async with (
        generation_server(backend, settings) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield GenerationServiceStub(channel), server


def text_prompt(text: str) -> common_pb2.Prompt:
    return common_pb2.Prompt(text=text)


async def drained(stream: AsyncIterable[pb.GenerateResponse]) -> list[pb.GenerateResponse]:
    return [message async for message in stream]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def test_dead_engine_is_unavailable_and_told() -> None:
    backend = ToyBackend()
    async with serving(backend) as (stub, _):
        stream = aiter(stub.Generate(pb.GenerateRequest(prompt=text_prompt("a"))))
        await anext(stream)
        backend.dies_at_next_step = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "NOT_READY"
        assert backend.failure is not None


async def test_unexpected_failure_is_internal_for_that_call_alone() -> None:
    backend = ToyBackend()
    backend.fails_on = "boom"
    async with serving(backend) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(pb.GenerateRequest(prompt=text_prompt("boom"))).read()
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "toy" not in (caught.value.details() or "")
        assert await stub.Generate(pb.GenerateRequest(prompt=text_prompt("fine"))).read()


async def test_batch_holds_each_prompts_failure_in_its_own_result() -> None:
    backend = ToyBackend()
    backend.fails_on = "boom"
    async with serving(backend) as (stub, _):
        prompts = [text_prompt(text) for text in ("one", "", "boom", "two")]
        response = await stub.GenerateBatch(
            pb.GenerateBatchRequest(prompts=prompts, sampling=pb.SamplingParams(max_tokens=3))
        )
    assert [result.error.reason for result in response.results] == [
        "",
        "INVALID_REQUEST",
        "INTERNAL",
        "",
    ]
    assert response.results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert response.results[1].error.field == "prompt"
    assert [len(result.completions) for result in response.results] == [1, 0, 0, 1]
    assert response.usage.completion_tokens == 6


async def test_batch_keeps_no_more_prompts_in_the_engine_than_allowed() -> None:
    backend = ToyBackend(ToySettings(max_running=64))
    most = 0
    load = backend.load

    async with serving(backend, limits=RequestLimitsConfig(max_batch_concurrency=3)) as (stub, _):
        prompts = [text_prompt(f"prompt {number}") for number in range(12)]
        task = asyncio.create_task(
            _unary(stub.GenerateBatch(pb.GenerateBatchRequest(prompts=prompts)))
        )
        while not task.done():
            most = max(most, load().num_running)
            await asyncio.sleep(0)
        response = await task
    assert 1 <= most <= 3
    assert len(response.results) == 12


async def _unary(call: Any) -> Any:
    return await call


async def test_full_queue_is_overloaded_and_says_when_to_retry() -> None:
    backend = ToyBackend(ToySettings(step_s=0.01, max_running=1, max_waiting=0))
    async with serving(backend) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(pb.GenerateRequest(prompt=text_prompt("a"))).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "OVERLOADED"


async def test_request_queued_past_its_deadline_ends_deadline_exceeded() -> None:
    backend = ToyBackend(ToySettings(step_s=0.02, max_running=1))
    async with serving(backend) as (stub, _):
        first = stub.Generate(pb.GenerateRequest(prompt=text_prompt("a")))
        await first.read()
        # Only the header carries the deadline, so the status is the server's own word.
        queued = stub.Generate(
            pb.GenerateRequest(prompt=text_prompt("b")), metadata=(("x-timeout-ms", "50"),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await queued.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reason_of(caught.value) == "DEADLINE_EXCEEDED"
        first.cancel()


async def test_call_without_a_deadline_gets_the_default_one() -> None:
    backend = ToyBackend(ToySettings(step_s=0.02))
    limits = RequestLimitsConfig(default_timeout_s=0.1)
    async with serving(backend, limits=limits) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(stub.Generate(pb.GenerateRequest(prompt=text_prompt("a"))))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_batch_at_its_deadline_returns_what_there_is() -> None:
    backend = ToyBackend(ToySettings(step_s=0.02, max_running=1))
    async with serving(backend) as (stub, _):
        response = await stub.GenerateBatch(
            pb.GenerateBatchRequest(prompts=[text_prompt("a"), text_prompt("b")]),
            metadata=(("x-timeout-ms", "150"),),
        )
    started, queued = response.results
    assert started.completions[0].finish_reason == pb.FINISH_REASON_DEADLINE
    assert started.completions[0].token_ids
    assert queued.error.reason == "DEADLINE_EXCEEDED"


async def test_close_lets_running_calls_finish_and_refuses_new_ones() -> None:
    backend = ToyBackend(ToySettings(step_s=0.005))
    async with serving(backend) as (stub, server):
        request = pb.GenerateRequest(
            prompt=text_prompt("a"), sampling=pb.SamplingParams(max_tokens=20)
        )
        running = aiter(stub.Generate(request))
        await anext(running)
        closing = asyncio.create_task(server.servicer.close())
        await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetLoad(pb.GetLoadRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        last = (await drained(running))[-1]
        assert last.choices[0].finish_reason == pb.FINISH_REASON_LENGTH
        await closing


async def test_close_cuts_what_outlives_the_limit_as_unavailable() -> None:
    backend = ToyBackend(ToySettings(step_s=0.02))
    async with serving(backend, drain_timeout_s=0.1) as (stub, server):
        running = aiter(stub.Generate(pb.GenerateRequest(prompt=text_prompt("a"))))
        await anext(running)
        await server.servicer.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(running)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert backend.load().num_running == 0


async def test_two_calls_may_carry_the_same_request_id() -> None:
    backend = ToyBackend(ToySettings(step_s=0.005))
    metadata = (("x-request-id", "same"),)
    async with serving(backend) as (stub, _):
        first, second = (
            stub.Generate(pb.GenerateRequest(prompt=text_prompt("a")), metadata=metadata)
            for _ in range(2)
        )
        assert (await first.read()).request_id == "same"
        messages = aiter(second)
        assert (await anext(messages)).request_id == "same"
        first.cancel()
        assert (await drained(messages))[-1].choices[0].finish_reason == pb.FINISH_REASON_LENGTH


async def test_score_sends_special_tokens_once() -> None:
    async with serving(ToyBackend()) as (stub, _):
        alone = await stub.Score(pb.ScoreRequest(target=text_prompt("ab")))
        after = await stub.Score(
            pb.ScoreRequest(context=text_prompt("x"), target=text_prompt("ab"))
        )
    assert len(alone.tokens) == 3  # with BOS, which nothing predicts
    assert alone.num_scored_tokens == 2
    assert len(after.tokens) == 2
    assert after.num_scored_tokens == 2
    assert after.usage.prompt_tokens == 4
