"""One open stream to a shard: many messages under way in it, each with its own time.

    ask ──> requests ──> gRPC ───────────┐
     ^                                   │ kept open
     └── by sequence <── read <──────────┘

An answer that is not waited for any more is cancelled at the shard. When the stream ends, whatever
is under way in it fails as a shard that is gone. Knows nothing of experts or tensors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from itertools import count

from orrery.v1 import expert_shard_pb2 as pb
from services.runtime.errors import DependencyDown, OrreryError

__all__ = ["ShardStream"]

Open = Callable[[AsyncIterator[pb.ComputeRequest]], AsyncGenerator[pb.ComputeResponse, None]]


class ShardStream:
    """`open_call` makes the call. Used from the event loop that it is made in; `close` it there."""

    def __init__(self, open_call: Open) -> None:
        self._requests: asyncio.Queue[pb.ComputeRequest] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[pb.ComputeResponse]] = {}
        self._sequences = count()
        self._reading = asyncio.create_task(self._read(open_call(self._sent())))

    @property
    def ended(self) -> bool:
        """No message can be sent any more."""
        return self._reading.done()

    async def ask(self, work: pb.ExpertWork) -> pb.ComputeResponse:
        """Its answer, which may be an error. Cancelling it gives the work up.

        Raises `OrreryError` where the stream ends first.
        """
        sequence = next(self._sequences)
        answer: asyncio.Future[pb.ComputeResponse] = asyncio.get_running_loop().create_future()
        self._answers[sequence] = answer
        self._requests.put_nowait(pb.ComputeRequest(sequence=sequence, work=work))
        try:
            return await answer
        finally:
            if self._answers.pop(sequence, None) is not None:
                given_up = pb.ComputeRequest(sequence=sequence, cancel=pb.CancelWork())
                self._requests.put_nowait(given_up)

    async def close(self) -> None:
        """Cancels what is under way. May be called twice."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _sent(self) -> AsyncIterator[pb.ComputeRequest]:
        while True:
            request = await self._requests.get()
            if request.sequence in self._answers or request.HasField("cancel"):
                yield request

    async def _read(self, responses: AsyncGenerator[pb.ComputeResponse, None]) -> None:
        error: OrreryError = DependencyDown("the shard's stream has ended")
        try:
            async with aclosing(responses):
                async for response in responses:
                    answer = self._answers.pop(response.sequence, None)
                    if answer is not None and not answer.done():
                        answer.set_result(response)
        except OrreryError as failure:
            error = failure
        finally:
            answers, self._answers = self._answers, {}
            for answer in answers.values():
                if not answer.done():
                    answer.set_exception(error)
