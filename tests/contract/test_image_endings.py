"""Deadlines and cancels at any step: every call ends once and gives back what it held."""

from __future__ import annotations

import asyncio
import gc
import random

import grpc
import pytest

from orrery.v1 import image_pb2 as pb
from orrery.v1.image_pb2_grpc import ImageServiceStub
from tests.contract.image_served import (
    OPTIONS,
    ServedImages,
    drawing,
    images,
    is_idle,
    sent,
    steps_of,
    wish,
)
from tests.contract.served import refusal

NUM_STEPS = 100
LONG = {"num_steps": NUM_STEPS}
MOST_KEPT_BYTES = 256 << 10  # of a call that was cut, as far as noise of the process lets one see


async def test_grpc_deadline_is_deadline_exceeded(served_images: ServedImages) -> None:
    call = served_images.stub.Generate(
        wish(n=4, **LONG), metadata=served_images.metadata, timeout=0.2
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert is_idle(await served_images.wait_until_idle(limit_s=60.0))


async def test_deadline_by_header_is_the_servers_own_word_and_names_the_stage(
    served_images: ServedImages,
) -> None:
    metadata = (*served_images.metadata, ("x-timeout-ms", "300"))
    call = served_images.stub.Generate(wish(n=4, **LONG), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    refused = refusal(caught.value)
    assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused.reason == "DEADLINE_EXCEEDED"
    assert refused.stage in ("queue", "denoise", "decode")


async def test_cancel_at_any_step_gives_everything_back(served_images: ServedImages) -> None:
    for after in (0, 1, 2, 7, 20):
        call = served_images.stub.Generate(wish(n=2, **LONG), metadata=served_images.metadata)
        async for message in call:
            if message.HasField("progress") and message.progress.step >= after:
                break
        call.cancel()
        assert is_idle(await served_images.wait_until_idle(limit_s=60.0)), f"step {after}"


async def test_cancelled_edit_gives_everything_back(served_images: ServedImages) -> None:
    model = await served_images.model()
    request = pb.EditRequest(
        prompt="a star",
        image=sent(drawing(model.default_width, model.default_height)),
        parameters=pb.DiffusionParameters(n=2, **LONG),
    )
    call = served_images.stub.Edit(request, metadata=served_images.metadata)
    await anext(aiter(call))
    call.cancel()
    assert is_idle(await served_images.wait_until_idle(limit_s=60.0))


async def test_two_hundred_calls_cut_at_random_leave_nothing_behind(
    served_images: ServedImages,
) -> None:
    """By cancelling the call or closing the channel; some in line, some at a step."""
    rng = random.Random(4)
    resident = []
    for _ in range(8):
        cuts = [
            cut_off(served_images, rng.randrange(12), close_channel=number % 3 == 0)
            for number in range(25)
        ]
        await asyncio.gather(*cuts)
        gc.collect()  # in this process clients leave garbage in the same memory
        load = await served_images.wait_until_idle(limit_s=60.0)
        assert is_idle(load), load
        resident.append(load.resident_bytes)
    # Caches fill in the first half; what each call of the second kept would add up.
    assert resident[-1] - resident[3] < 100 * MOST_KEPT_BYTES, resident
    messages = await served_images.generate()
    assert steps_of(messages) == [0, 1, 2, 3]
    assert images(messages)


async def cut_off(served: ServedImages, num_messages: int, *, close_channel: bool) -> None:
    """Reads so many messages, then leaves."""
    # A pool of its own: closing the channel must break its connection, not one that is shared.
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(served.target, options=options) as channel:
        call = ImageServiceStub(channel).Generate(wish(n=2, **LONG), metadata=served.metadata)
        stream = aiter(call)
        for _ in range(num_messages):
            await anext(stream)
        if not close_channel:
            call.cancel()


async def test_request_id_comes_back_on_success_and_failure(served_images: ServedImages) -> None:
    metadata = (*served_images.metadata, ("x-request-id", "mine-1"))
    call = served_images.stub.Generate(wish(), metadata=metadata)
    assert {message.request_id async for message in call} == {"mine-1"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(served_images.stub.Generate(wish(n=0), metadata=metadata)))
    assert refusal(caught.value).request_id == "mine-1"
