"""How a service stops: calls that run end in time, streams that are kept open end at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.runtime.errors import NotReady
from services.runtime.lifecycle import InFlight, Lifecycle


class Stream:
    """One that is kept open: what its client sends, and what the service has answered."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.sent: asyncio.Queue[str | None] = asyncio.Queue()
        self.answered: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._serving = asyncio.create_task(self._serve(lifecycle))

    async def ended(self) -> BaseException | None:
        async with asyncio.timeout(5):
            await asyncio.wait({self._serving})
        return self._serving.exception()

    def cancel(self) -> asyncio.Task[None]:
        self._serving.cancel()
        return self._serving

    async def _serve(self, lifecycle: Lifecycle) -> None:
        with lifecycle.call() as call:
            async for request in call.requests(self._requests()):
                await self.may_answer.wait()
                self.answered.append(request)

    async def _requests(self) -> AsyncIterator[str]:
        while (request := await self.sent.get()) is not None:
            yield request


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle()


async def test_stream_between_requests_ends_at_once_when_the_service_leaves(
    lifecycle: Lifecycle,
) -> None:
    stream = Stream(lifecycle)
    stream.sent.put_nowait("first")
    await settled()
    leaving = asyncio.create_task(lifecycle.leave(limit_s=60))
    assert isinstance(await stream.ended(), NotReady)
    assert stream.answered == ["first"]
    assert lifecycle.num_in_flight == 0
    leaving.cancel()


async def test_request_that_has_come_is_answered_before_its_stream_ends(
    lifecycle: Lifecycle,
) -> None:
    stream = Stream(lifecycle)
    stream.may_answer.clear()
    stream.sent.put_nowait("first")
    stream.sent.put_nowait("second")
    await settled()
    draining = asyncio.create_task(lifecycle.drain(limit_s=60))
    await settled()
    assert lifecycle.num_in_flight == 1
    stream.may_answer.set()
    assert isinstance(await stream.ended(), NotReady)
    assert stream.answered == ["first"]
    assert await draining == 0


async def test_stream_that_its_client_ends_is_whole(lifecycle: Lifecycle) -> None:
    stream = Stream(lifecycle)
    for request in ("first", "second", None):
        stream.sent.put_nowait(request)
    assert await stream.ended() is None
    assert stream.answered == ["first", "second"]


async def test_stream_whose_client_leaves_stays_cancelled(lifecycle: Lifecycle) -> None:
    stream = Stream(lifecycle)
    await settled()
    serving = stream.cancel()
    leaving = asyncio.create_task(lifecycle.leave(limit_s=60))
    await asyncio.wait({serving})
    assert serving.cancelled()
    leaving.cancel()


async def test_calls_still_come_while_the_service_leaves_but_no_stream_stays(
    lifecycle: Lifecycle,
) -> None:
    leaving = asyncio.create_task(lifecycle.leave(limit_s=60))
    await settled()
    assert lifecycle.draining
    with lifecycle.call() as call:
        assert isinstance(call, InFlight)
    assert isinstance(await Stream(lifecycle).ended(), NotReady)
    leaving.cancel()


async def test_service_that_has_left_has_cut_what_ran_and_refuses(lifecycle: Lifecycle) -> None:
    async def wait_for_ever() -> None:
        with lifecycle.call():
            await asyncio.Event().wait()

    running = asyncio.create_task(wait_for_ever())
    await settled()
    await lifecycle.leave(limit_s=0.01)
    await asyncio.wait({running})
    assert running.cancelled()
    assert lifecycle.cut
    with pytest.raises(NotReady), lifecycle.call():
        pass
