"""One open stream of a router: many messages under way in it, each answered when it is done.

    messages ── read ─┬─> work 7 ──┐
                      ├─> work 8 ──┼─> ready ──> answers, in the order in which they are done
                      └─> cancel 7 ┘

Leaving the stream gives up what is under way in it. Knows nothing of experts or tensors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.runtime.errors import InvalidRequest

__all__ = ["ComputeStream"]


class _Running(NamedTuple):
    task: asyncio.Task[None]
    num_bytes: int  # of its message


class _Ready(NamedTuple):
    answer: pb.ComputeResponse
    num_bytes: int  # of the message that it answers


class ComputeStream:
    """`compute` answers a message, at once or in a while, or raises what `told` tells.

    Used from one event loop. While messages of `max_unsent_bytes` are under way, or their answers
    unread, no more are read.
    """

    def __init__(
        self,
        compute: Callable[[pb.ComputeRequest], pb.ComputeResponse | Awaitable[pb.ComputeResponse]],
        told: Callable[[Exception], retrieval_pb2.ItemError],
        max_unsent_bytes: int,
    ) -> None:
        self._compute = compute
        self._told = told
        self._max_unsent_bytes = max_unsent_bytes
        self._unsent_bytes = 0
        self._has_room = asyncio.Event()
        self._running: dict[int, _Running] = {}
        self._ready: asyncio.Queue[_Ready | None] = asyncio.Queue()

    async def answers(
        self, requests: AsyncIterator[pb.ComputeRequest]
    ) -> AsyncGenerator[pb.ComputeResponse, None]:
        """To all messages but cancels, and those that are cancelled in time.

        Raises what `requests` raises, once all that came before is answered.
        """
        reading = asyncio.create_task(self._read(requests))
        try:
            while (ready := await self._ready.get()) is not None:
                yield ready.answer
                self._free(ready.num_bytes)
            await reading
        finally:
            tasks = [reading, *(running.task for running in self._running.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ComputeRequest]) -> None:
        try:
            async for request in requests:
                if request.HasField("cancel"):
                    self._give_up(request.sequence)
                else:
                    self._begin(request)
                    await self._room()
        finally:
            if self._running:  # no more come; these are answered still
                await asyncio.wait([running.task for running in self._running.values()])
            self._ready.put_nowait(None)

    def _begin(self, request: pb.ComputeRequest) -> None:
        num_bytes = request.ByteSize()
        self._unsent_bytes += num_bytes
        sequence = request.sequence
        try:
            if sequence in self._running:
                raise InvalidRequest(
                    f"sequence: {sequence} is under way in this stream already", field="sequence"
                )
            answer = self._compute(request)
        except Exception as error:  # noqa: BLE001 - told to whom it concerns
            answer = pb.ComputeResponse(error=self._told(error))
        if isinstance(answer, pb.ComputeResponse):
            self._say(sequence, answer, num_bytes)
        else:
            task = asyncio.create_task(self._finish(sequence, answer, num_bytes))
            self._running[sequence] = _Running(task, num_bytes)

    async def _finish(
        self, sequence: int, coming: Awaitable[pb.ComputeResponse], num_bytes: int
    ) -> None:
        try:
            answer = await coming
        except Exception as error:  # noqa: BLE001 - told to whom it concerns
            answer = pb.ComputeResponse(error=self._told(error))
        del self._running[sequence]
        self._say(sequence, answer, num_bytes)

    def _say(self, sequence: int, answer: pb.ComputeResponse, num_bytes: int) -> None:
        answer.sequence = sequence
        self._ready.put_nowait(_Ready(answer, num_bytes))

    def _give_up(self, sequence: int) -> None:
        running = self._running.pop(sequence, None)
        if running is not None:
            running.task.cancel()
            self._free(running.num_bytes)

    def _free(self, num_bytes: int) -> None:
        self._unsent_bytes -= num_bytes
        self._has_room.set()

    async def _room(self) -> None:
        while self._unsent_bytes > self._max_unsent_bytes:
            self._has_room.clear()
            await self._has_room.wait()
