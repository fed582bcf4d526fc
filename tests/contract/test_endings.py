"""Deadlines, cancellation, request ids: every call ends once and gives back what it held."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Callable
from http import HTTPStatus
from inspect import isawaitable

import grpc
import httpx
import pytest

from orrery.v1 import generation_pb2 as pb
from orrery.v1.generation_pb2_grpc import GenerationServiceStub
from tests.contract.served import (
    Served,
    ends,
    greedy,
    is_idle,
    joined,
    refusal,
    text,
    token_ids,
)

LONG = pb.GenerateRequest(prompt=text("The observatory of"), sampling=greedy(max_tokens=900))


async def test_grpc_deadline_is_deadline_exceeded(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in served.stub.Generate(LONG, metadata=served.metadata, timeout=0.05):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_deadline_by_header_is_the_servers_own_word(served: Served) -> None:
    metadata = (*served.metadata, ("x-timeout-ms", "50"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in served.stub.Generate(LONG, metadata=metadata):
            pass
    refused = refusal(caught.value)
    assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused.reason == "DEADLINE_EXCEEDED"


async def test_request_queued_past_its_deadline_never_ends_as_length(served: Served) -> None:
    limits = (await served.info()).limits
    occupied = [
        served.stub.Generate(LONG, metadata=served.metadata) for _ in range(limits.max_running)
    ]
    await asyncio.gather(*(call.read() for call in occupied))
    metadata = (*served.metadata, ("x-timeout-ms", "60"))
    queued = pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in served.stub.Generate(queued, metadata=metadata):
            pass
    refused, late = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.code() is (late if limits.max_waiting else refused)
    for call in occupied:
        call.cancel()


async def test_request_id_comes_back_on_success_and_failure(served: Served) -> None:
    metadata = (*served.metadata, ("x-request-id", "mine-1"))
    call = served.stub.Generate(
        pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=2)), metadata=metadata
    )
    assert {message.request_id async for message in call} == {"mine-1"}
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Score(pb.ScoreRequest(), metadata=metadata)
    assert refusal(caught.value).request_id == "mine-1"


async def test_cancelled_batch_and_score_give_everything_back(served: Served) -> None:
    batch = served.stub.GenerateBatch(
        pb.GenerateBatchRequest(prompts=[text(f"lamp {n}") for n in range(40)], sampling=greedy()),
        metadata=served.metadata,
    )
    await asyncio.sleep(0.1)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert is_idle(await served.wait_until_idle(limit_s=2.0))


async def test_slow_reader_holds_up_nobody_and_loses_nothing(served: Served) -> None:
    stream = aiter(served.stub.Generate(LONG, metadata=served.metadata))
    messages = [await anext(stream)]
    load = await served.wait_until_idle(limit_s=30.0)
    assert is_idle(load), "the engine waits for a reader"
    messages += [message async for message in stream]
    assert len(token_ids(messages)) == 900
    assert ends(messages) == {0: pb.FINISH_REASON_LENGTH}


async def test_200_streams_cut_at_random_leave_nothing_behind(served: Served) -> None:
    """By cancelling the call, closing the channel, or leaving the HTTP connection; some of them
    before their first token.
    """
    rng = random.Random(20)
    ways = [_cancel_call, _close_channel] + ([_leave_http] if served.http_url else [])
    limits = (await served.info()).limits
    places = asyncio.Semaphore(limits.max_running + limits.max_waiting)

    async def cut(number: int) -> int:
        async with places:
            return await ways[number % len(ways)](served, rng.uniform(0.0, 1.5))

    lengths = await asyncio.gather(*(cut(number) for number in range(200)))
    load = await served.wait_until_idle(limit_s=2.0)
    assert is_idle(load), load
    for number, way in enumerate(ways):
        assert any(lengths[number :: len(ways)]), f"{way.__name__}: no stream got to a token"
    fresh = await served.generate(
        pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=4))
    )
    assert joined(fresh)


async def _cancel_call(served: Served, after_s: float) -> int:
    """Reads for a while, then cancels the call. Returns the messages read."""
    call = served.stub.Generate(LONG, metadata=served.metadata)
    return await _read_until_left(call, after_s, call.cancel)


async def _close_channel(served: Served, after_s: float) -> int:
    """Reads for a while, then closes the channel under the call."""
    # A pool of its own: closing the channel must break its connection, not one that is shared.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(served.target, options=options) as channel:
        call = GenerationServiceStub(channel).Generate(LONG, metadata=served.metadata)
        return await _read_until_left(call, after_s, channel.close)


async def _leave_http(served: Served, after_s: float) -> int:
    """Reads a chat's events for a while, then drops the connection."""
    body = {
        "model": served.model,
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 900,
        "temperature": 2,
        "stream": True,
    }
    async with (
        httpx.AsyncClient(base_url=str(served.http_url), timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            return 0  # those that left a moment ago still hold their places
        return await _read_until_left(response.aiter_lines(), after_s, response.aclose)


async def _read_until_left(
    stream: AsyncIterable[object], after_s: float, leave: Callable[[], object]
) -> int:
    count = 0

    async def read() -> None:
        nonlocal count
        async for _ in stream:
            count += 1

    reader = asyncio.create_task(read())
    await asyncio.wait([reader], timeout=after_s)
    left = leave()
    if isawaitable(left):
        await left
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    return count
