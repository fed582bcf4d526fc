"""Many messages in one stream to a shard, over a transport that does as a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from orrery.v1 import expert_shard_pb2 as pb
from services.moe.router.shard_stream import ShardStream
from services.runtime.errors import DependencyDown, NotReady, OrreryError


class Transport:
    """What a shard would see and say."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[pb.ComputeRequest] = asyncio.Queue()
        self.closed = False
        self.takes = asyncio.Event()  # unset: it takes no message
        self.takes.set()
        self._said: asyncio.Queue[pb.ComputeResponse | OrreryError | None] = asyncio.Queue()

    def answer(self, sequence: int) -> None:
        self._said.put_nowait(pb.ComputeResponse(sequence=sequence))

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
            self.closed = True

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


def ask(stream: ShardStream, layer: int = 0) -> asyncio.Task[pb.ComputeResponse]:
    return asyncio.create_task(stream.ask(pb.ExpertWork(layer=layer)))


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


@pytest.mark.parametrize("error", [None, NotReady("the service is shutting down")])
async def test_the_end_of_the_stream_fails_all_that_is_under_way(
    stream: ShardStream, transport: Transport, error: OrreryError | None
) -> None:
    asked = [ask(stream) for _ in range(3)]
    for _ in asked:
        await transport.sent.get()
    assert not stream.ended
    transport.end(error)
    expected = DependencyDown if error is None else NotReady
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(failure) for failure in failures] == [expected] * 3
    assert stream.ended
    assert transport.sent.empty()


async def test_closing_fails_what_is_under_way(stream: ShardStream, transport: Transport) -> None:
    asked = ask(stream)
    await transport.sent.get()
    await stream.close()
    assert stream.ended
    with pytest.raises(DependencyDown):
        await asked
