"""Deadlines, cancellation, request ids: every call ends once and gives back what it held."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from orrery.v1 import generation_pb2 as pb
from orrery.v1.generation_pb2_grpc import GenerationServiceStub
from tests.contract.served import Served, greedy, is_idle, joined, refusal, text

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
    limit = (await served.info()).limits.max_running
    occupied = [served.stub.Generate(LONG, metadata=served.metadata) for _ in range(limit)]
    await asyncio.gather(*(call.read() for call in occupied))
    metadata = (*served.metadata, ("x-timeout-ms", "60"))
    queued = pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in served.stub.Generate(queued, metadata=metadata):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
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


async def test_200_streams_cut_at_random_leave_nothing_behind(served: Served) -> None:
    """Half by cancelling the call, half by closing the channel; some before their first token."""
    rng = random.Random(20)
    pieces = await asyncio.gather(
        *(_cut_stream(served, rng.uniform(0.0, 1.5), close=n % 2 == 0) for n in range(200))
    )
    load = await served.wait_until_idle(limit_s=2.0)
    assert is_idle(load), load
    assert any(pieces), "no stream got as far as a token: nothing was cut"
    fresh = await served.generate(
        pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=4))
    )
    assert joined(fresh)


async def _cut_stream(served: Served, after_s: float, *, close: bool) -> int:
    """Reads for a while, then leaves in one of the two ways. Returns the messages read."""
    # A pool of its own: closing a channel must break its connection, not one that is shared.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(served.target, options=options) as channel:
        call = GenerationServiceStub(channel).Generate(LONG, metadata=served.metadata)
        count = 0

        async def read() -> None:
            nonlocal count
            async for _ in call:
                count += 1

        reader = asyncio.create_task(read())
        await asyncio.wait([reader], timeout=after_s)
        if close:
            await channel.close()
        else:
            call.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        return count
