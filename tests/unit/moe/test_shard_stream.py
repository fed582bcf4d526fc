"""Many messages in one stream to a shard, over a transport that does as a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.moe.router.shard_stream import ShardStream
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    Internal,
    NotReady,
    OrreryError,
)


class Transport:
    """What a shard would see and say."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[pb.ComputeRequest] = asyncio.Queue()
        self.closing = asyncio.Event()
        self.takes = asyncio.Event()  # unset: it takes no message
        self.takes.set()
        self._said: asyncio.Queue[pb.ComputeResponse | OrreryError | None] = asyncio.Queue()

    @property
    def closed(self) -> bool:
        return self.closing.is_set()

    def answer(self, sequence: int) -> None:
        self.say(pb.ComputeResponse(sequence=sequence))

    def say(self, response: pb.ComputeResponse) -> None:
        self._said.put_nowait(response)

    def end(self, error: OrreryError | None = None) -> None:
        self._said.put_nowait(error)

    async def open(
        self, requests: AsyncIterator[pb.ComputeRequest]
    ) -> AsyncGenerator[pb.ComputeResponse, None]:
        sending = asyncio.create_task(self._send(requests))
        try:
            while (said := await self._said.get()) is not None:
                if isinstance(said, OrreryError):
                    raise said
                yield said
        finally:
            sending.cancel()
            self.closing.set()

    async def _send(self, requests: AsyncIterator[pb.ComputeRequest]) -> None:
        async for request in requests:
            await self.takes.wait()
            self.sent.put_nowait(request)


@pytest.fixture
async def transport() -> Transport:
    return Transport()


@pytest.fixture
async def stream(transport: Transport) -> AsyncIterator[ShardStream]:
    made = ShardStream(transport.open)
    yield made
    await made.close()
    assert transport.closed


def read(response: pb.ComputeResponse) -> pb.ComputeResponse:
    if response.HasField("error"):
        raise Internal(response.error.message)
    return response


def ask(
    stream: ShardStream, layer: int = 0, timeout_s: float = 10.0
) -> asyncio.Future[pb.ComputeResponse]:
    return stream.ask(pb.ExpertWork(layer=layer), timeout_s, read)


async def test_answers_reach_who_asked_in_any_order(
    stream: ShardStream, transport: Transport
) -> None:
    asked = [ask(stream, layer) for layer in range(5)]
    sequences = [(await transport.sent.get()).sequence for _ in asked]
    for sequence in (sequences[n] for n in (3, 0, 4, 2, 1)):
        transport.answer(sequence)
    assert [(await task).sequence for task in asked] == sequences


async def test_who_leaves_cancels_that_work_alone(
    stream: ShardStream, transport: Transport
) -> None:
    staying, leaving = ask(stream, 1), ask(stream, 2)
    first, second = await transport.sent.get(), await transport.sent.get()
    leaving.cancel()
    told = await transport.sent.get()
    assert (told.sequence, told.WhichOneof("action")) == (second.sequence, "cancel")
    transport.answer(second.sequence)  # it was on its way already
    transport.answer(first.sequence)
    assert (await staying).sequence == first.sequence
    assert leaving.cancelled()


async def test_work_that_is_given_up_before_it_was_sent_is_never_sent(
    stream: ShardStream, transport: Transport
) -> None:
    transport.takes.clear()
    first, leaving, last = ask(stream, 1), ask(stream, 2), ask(stream, 3)
    await asyncio.sleep(0.01)
    leaving.cancel()
    transport.takes.set()
    sent = [await transport.sent.get() for _ in range(3)]
    assert [r.work.layer for r in sent if r.HasField("work")] == [1, 3]
    for request in sent:
        transport.answer(request.sequence)
    await asyncio.gather(first, last)


async def test_who_has_an_answer_cancels_nothing(stream: ShardStream, transport: Transport) -> None:
    asked = ask(stream)
    transport.answer((await transport.sent.get()).sequence)
    await asked
    await asyncio.sleep(0.01)
    assert transport.sent.empty()


async def test_what_reading_a_response_raises_fails_that_answer_alone(
    stream: ShardStream, transport: Transport
) -> None:
    bad, good = ask(stream), ask(stream)
    first, second = await transport.sent.get(), await transport.sent.get()
    error = retrieval_pb2.ItemError(reason="INTERNAL", message="it broke")
    transport.say(pb.ComputeResponse(sequence=first.sequence, error=error))
    transport.answer(second.sequence)
    assert (await good).sequence == second.sequence
    with pytest.raises(Internal, match="it broke"):
        await bad


async def test_late_work_is_cancelled_and_others_still_come(
    stream: ShardStream, transport: Transport
) -> None:
    late, other = ask(stream, timeout_s=0.01), ask(stream)
    first, second = await transport.sent.get(), await transport.sent.get()
    with pytest.raises(DeadlineExceeded):
        await late
    told = await transport.sent.get()
    assert (told.sequence, told.WhichOneof("action")) == (first.sequence, "cancel")
    assert not stream.usable  # it may be the connection that is silent
    assert not transport.closed
    transport.answer(second.sequence)
    assert (await other).sequence == second.sequence
    async with asyncio.timeout(5):
        await transport.closing.wait()


@pytest.mark.parametrize("error", [None, NotReady("the service is shutting down")])
async def test_the_end_of_the_stream_fails_all_that_is_under_way(
    stream: ShardStream, transport: Transport, error: OrreryError | None
) -> None:
    asked = [ask(stream) for _ in range(3)]
    for _ in asked:
        await transport.sent.get()
    assert stream.usable
    transport.end(error)
    expected = DependencyDown if error is None else NotReady
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(failure) for failure in failures] == [expected] * 3
    assert not stream.usable
    assert transport.sent.empty()


async def test_closing_fails_what_is_under_way(stream: ShardStream, transport: Transport) -> None:
    asked = ask(stream)
    await transport.sent.get()
    await stream.close()
    assert not stream.usable
    with pytest.raises(DependencyDown):
        await asked
