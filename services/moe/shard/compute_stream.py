"""One open stream of a router: many messages under way in it, each answered when it is done.

    messages ── read ─┬─> work 7 ──┐
                      ├─> work 8 ──┼─> ready ──> answers, in the order in which they are done
                      └─> cancel 7 ┘

Leaving the stream gives up what is under way in it. Knows nothing of experts or tensors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.runtime.errors import InvalidRequest

__all__ = ["ComputeStream"]


class ComputeStream:
    """`compute` answers a message, or raises what `told` makes its error of.

    Used from one event loop. While `max_unsent` messages are under way, or their answers unread, no
    more are read.
    """

    def __init__(
        self,
        compute: Callable[[pb.ComputeRequest], Awaitable[pb.ComputeResponse]],
        told: Callable[[Exception], retrieval_pb2.ItemError],
        max_unsent: int,
    ) -> None:
        self._compute = compute
        self._told = told
        self._room = asyncio.Semaphore(max_unsent)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._ready: asyncio.Queue[pb.ComputeResponse | None] = asyncio.Queue()

    async def answers(
        self, requests: AsyncIterator[pb.ComputeRequest]
    ) -> AsyncGenerator[pb.ComputeResponse, None]:
        """To all messages but cancels, and those that are cancelled in time.

        Raises what `requests` raises.
        """
        reading = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._ready.get()) is not None:
                yield answer
                self._room.release()
            await reading
        finally:
            tasks = [reading, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ComputeRequest]) -> None:
        try:
            async for request in requests:
                if request.HasField("cancel"):
                    self._give_up(request.sequence)
                else:
                    await self._room.acquire()
                    self._begin(request)
            while self._running:  # no more are asked for; these are answered still
                await asyncio.wait(self._running.values())
        finally:
            self._ready.put_nowait(None)

    def _begin(self, request: pb.ComputeRequest) -> None:
        sequence = request.sequence
        if sequence in self._running:
            twice = InvalidRequest(
                f"sequence: {sequence} is under way in this stream already", field="sequence"
            )
            self._ready.put_nowait(pb.ComputeResponse(sequence=sequence, error=self._told(twice)))
        else:
            self._running[sequence] = asyncio.create_task(self._do(request))

    def _give_up(self, sequence: int) -> None:
        work = self._running.pop(sequence, None)
        if work is not None and work.cancel():
            self._room.release()

    async def _do(self, request: pb.ComputeRequest) -> None:
        try:
            answer = await self._compute(request)
        except Exception as error:  # noqa: BLE001 - told to whom it concerns
            answer = pb.ComputeResponse(error=self._told(error))
        answer.sequence = request.sequence
        self._running.pop(request.sequence)
        self._ready.put_nowait(answer)
