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
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

from orrery.v1 import expert_shard_pb2 as pb
from services.runtime.errors import DeadlineExceeded, DependencyDown, OrreryError

__all__ = ["ShardStream"]

Open = Callable[[AsyncIterator[pb.ComputeRequest]], AsyncGenerator[pb.ComputeResponse, None]]

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Whoever waits for an answer."""

    answer: asyncio.Future[Any]
    read: Callable[[pb.ComputeResponse], Any]
    timer: asyncio.TimerHandle


class ShardStream:
    """`open_call` makes the call. Used from the event loop that it is made in; `close` it there."""

    def __init__(self, open_call: Open) -> None:
        self._requests: asyncio.Queue[pb.ComputeRequest] = asyncio.Queue()
        self._waiting: dict[int, _Waiting] = {}
        self._sequences = count()
        self._is_late = False
        self._reading = asyncio.create_task(self._receive(open_call(self._sent())))

    @property
    def usable(self) -> bool:
        """Whether work may be sent. Not where it has ended, nor where it left work unanswered: it
        may be the connection that is silent. What else is under way in it then still may come.
        """
        return not self._is_late and not self._reading.done()

    def ask(
        self, work: pb.ExpertWork, timeout_s: float, read: Callable[[pb.ComputeResponse], AnswerT]
    ) -> asyncio.Future[AnswerT]:
        """What `read` makes of the response. Cancelling it gives the work up.

        Fails with `DeadlineExceeded`, with what ends the stream first, or with the `OrreryError`
        that `read` raises.
        """
        loop = asyncio.get_running_loop()
        sequence = next(self._sequences)
        answer: asyncio.Future[AnswerT] = loop.create_future()
        timer = loop.call_later(timeout_s, self._late, answer)
        self._waiting[sequence] = _Waiting(answer, read, timer)
        answer.add_done_callback(partial(self._done, sequence))
        self._requests.put_nowait(pb.ComputeRequest(sequence=sequence, work=work))
        return answer

    async def close(self) -> None:
        """Ends what is under way. May be called twice."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _late(self, answer: asyncio.Future[Any]) -> None:
        self._is_late = True
        if not answer.done():
            answer.set_exception(DeadlineExceeded("the shard has not answered in time"))

    def _done(self, sequence: int, _: asyncio.Future[Any]) -> None:
        waiting = self._waiting.pop(sequence, None)
        if waiting is not None:  # it was given up
            waiting.timer.cancel()
            given_up = pb.ComputeRequest(sequence=sequence, cancel=pb.CancelWork())
            self._requests.put_nowait(given_up)
        if self._is_late and not self._waiting:
            self._reading.cancel()

    async def _sent(self) -> AsyncIterator[pb.ComputeRequest]:
        while True:
            request = await self._requests.get()
            if request.sequence in self._waiting or request.HasField("cancel"):
                yield request

    async def _receive(self, responses: AsyncGenerator[pb.ComputeResponse, None]) -> None:
        error: OrreryError = DependencyDown("the shard's stream has ended")
        try:
            async with aclosing(responses):
                async for response in responses:
                    self._answer(response)
        except OrreryError as failure:
            error = failure
        finally:
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.timer.cancel()
                if not one.answer.done():
                    one.answer.set_exception(error)

    def _answer(self, response: pb.ComputeResponse) -> None:
        waiting = self._waiting.pop(response.sequence, None)
        if waiting is None:  # nobody waits for it any more
            return
        waiting.timer.cancel()
        if waiting.answer.done():
            return
        try:
            waiting.answer.set_result(waiting.read(response))
        except OrreryError as error:
            waiting.answer.set_exception(error)
