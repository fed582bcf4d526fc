"""The engine for asyncio: steps in a thread of their own, outputs as async streams.

    event loops                                  step thread
    generate() ── adds and aborts ──> inbox ──>  drain, step, drain, step, ...
         ^                                          │ merges each output into its stream
         └──── one wake-up per loop and step <──────┘

A stream holds at most one pending output: what a slow reader has not taken yet is merged into it.
The step thread sleeps while there is nothing to do. Knows nothing of gRPC or HTTP.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from services.engine.engine import LLMEngine
from services.engine.errors import (
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    QueueFullError,
)
from services.engine.request import CompletionOutput, FinishReason, Request, RequestOutput
from services.engine.stats import EngineLoad

__all__ = ["AsyncEngine"]

_STEP_NICENESS = 5


@dataclass(eq=False, slots=True)
class _Stream:
    """A request's way back to its reader. Guarded by the engine's lock, except `ready`."""

    request: Request
    loop: asyncio.AbstractEventLoop
    ready: asyncio.Event
    pending: RequestOutput | None = None
    error: Exception | None = None
    ended: bool = False  # nothing more will come

    def put(self, output: RequestOutput) -> None:
        if self.pending is None:
            self.pending = output
        else:
            self.pending.extend(output)
        self.ended = output.finished


@dataclass(slots=True)
class _Inbox:
    """What the event loops ask of the step thread."""

    adds: list[_Stream] = field(default_factory=list)
    aborts: list[_Stream] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.adds or self.aborts)

    @property
    def num_places(self) -> int:
        """What it takes of the engine's places for new requests, at least."""
        return len(self.adds) - len(self.aborts)


class AsyncEngine:
    """Runs an `LLMEngine`, which it then owns: nobody else may call it.

    May be used from several event loops at once. The thread starts with the first request.
    """

    def __init__(self, engine: LLMEngine) -> None:
        self._engine = engine
        self._validator = engine.validator
        self._wake = threading.Condition()  # its lock guards all that follows
        self._inbox = _Inbox()
        self._at_hand = _Inbox()  # what the step thread took and `_load` does not tell yet
        self._streams: dict[str, _Stream] = {}  # those with a reader, by request_id
        self._load = engine.load()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._death: EngineDeadError | None = None
        self._began_s: float | None = None  # the step under way; None: the thread sleeps
        # The step thread's own: what the engine knows. A new stream may have the request_id of one
        # whose reader has left while its last step still runs.
        self._active: dict[str, _Stream] = {}

    @property
    def failure(self) -> str | None:
        """Why nothing is to be expected of the engine any more; None = it goes on."""
        if self._death is not None:
            return "the engine has stopped"
        began_s = self._began_s
        under_way_s = 0.0 if began_s is None else time.monotonic() - began_s
        if under_way_s > self._engine.config.stuck_after_s:
            return f"a step has been under way for {under_way_s:.0f} s"
        return None

    def load(self) -> EngineLoad:
        """As of the last step."""
        return self._load

    async def generate(self, request: Request) -> AsyncGenerator[RequestOutput, None]:
        """Streams what each step added; the last output is `finished`.

        Closing the generator, or cancelling the task that reads it, aborts the request: what it
        held is free at the next step. Raises `InvalidRequestError`, `ContextTooLongError`,
        `QueueFullError`, or `EngineDeadError` when the engine has stopped.
        """
        self._validator.check(request)
        stream = _Stream(request, asyncio.get_running_loop(), asyncio.Event())
        self._submit(stream)
        try:
            while True:
                await stream.ready.wait()
                stream.ready.clear()
                with self._wake:
                    output, stream.pending = stream.pending, None
                    ended, error = stream.ended, stream.error
                if output is not None:
                    yield output
                if error is not None:
                    raise error
                if ended:
                    return
        finally:
            self._leave(stream)

    async def close(self) -> None:
        """Ends every stream with `FinishReason.CANCELLED` and stops the thread.

        Returns when the step that runs has ended. Later requests raise `EngineDeadError`.
        """
        with self._wake:
            self._closing = True
            if self._death is None:
                self._death = EngineDeadError("the engine has been closed")
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)

    # On the event loops ---------------------------------------------------------------------

    def _submit(self, stream: _Stream) -> None:
        with self._wake:
            if self._death is not None:
                raise EngineDeadError(str(self._death)) from self._death
            request_id = stream.request.request_id
            if request_id in self._streams:
                raise InvalidRequestError("request_id", f"{request_id!r} is in use")
            self._check_place()
            self._streams[request_id] = stream
            self._inbox.adds.append(stream)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="engine-steps", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _check_place(self) -> None:
        """Raises `QueueFullError` now rather than when the step that runs has ended. The engine has
        the last word. Needs the lock."""
        load = self._load
        if self._inbox.num_places + self._at_hand.num_places >= load.num_places:
            raise QueueFullError.beyond(load.max_waiting, load.retry_after_s)

    def _leave(self, stream: _Stream) -> None:
        """The reader is gone. If the request is not over, it is aborted."""
        with self._wake:
            if not stream.ended and stream.error is None:
                self._abort(stream)

    def _abort(self, stream: _Stream) -> None:
        """Needs the lock."""
        stream.ended = True
        del self._streams[stream.request.request_id]
        if stream in self._inbox.adds:
            self._inbox.adds.remove(stream)
        else:
            self._inbox.aborts.append(stream)
            self._wake.notify()

    # On the step thread ---------------------------------------------------------------------

    def _run(self) -> None:
        _yield_to_event_loops()
        try:
            while (inbox := self._take_inbox()) is not None:
                self._carry_out(inbox)
                self._deliver(self._engine.step())
        except Exception as error:  # noqa: BLE001 - whatever it is, no step can follow
            self._die(error)
        else:
            self._end_all()

    def _take_inbox(self) -> _Inbox | None:
        """Sleeps until there is something to do. None: the engine is being closed."""
        with self._wake:
            self._began_s = None
            while not (self._inbox or self._closing or self._engine.has_unfinished()):
                self._wake.wait()
            self._began_s = time.monotonic()
            self._at_hand, self._inbox = self._inbox, _Inbox()
            return None if self._closing else self._at_hand

    def _carry_out(self, inbox: _Inbox) -> None:
        for stream in inbox.aborts:
            if self._active.get(stream.request.request_id) is stream:
                del self._active[stream.request.request_id]
                self._engine.abort(stream.request.request_id)
        refused = []
        for stream in inbox.adds:
            try:
                self._engine.add_request(stream.request)
            except EngineError as error:
                refused.append((stream, error))
            else:
                self._active[stream.request.request_id] = stream
        with self._wake:
            for stream, reason in refused:
                stream.error = reason
                self._forget(stream)
            self._load = self._engine.load()
            self._at_hand = _Inbox()
        self._wake_readers([stream for stream, _ in refused])

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        readers = []
        with self._wake:
            for output in outputs:
                stream = self._active[output.request_id]
                if output.finished:
                    del self._active[output.request_id]
                if not stream.ended:  # else its reader has left; the abort is in the inbox
                    stream.put(output)
                    readers.append(stream)
                    if output.finished:
                        self._forget(stream)
            self._load = self._engine.load()
        self._wake_readers(readers)

    def _forget(self, stream: _Stream) -> None:
        """Makes its request_id free. Needs the lock."""
        if self._streams.get(stream.request.request_id) is stream:
            del self._streams[stream.request.request_id]

    def _wake_readers(self, streams: Iterable[_Stream]) -> None:
        """One call into each event loop, however many of its streams have news."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Stream]] = {}
        for stream in streams:
            by_loop.setdefault(stream.loop, []).append(stream)
        for loop, readers in by_loop.items():
            try:
                loop.call_soon_threadsafe(_set_ready, readers)
            except RuntimeError:  # the loop was closed under its readers: they are gone
                for stream in readers:
                    self._leave(stream)

    def _die(self, cause: Exception) -> None:
        with self._wake:
            self._death = EngineDeadError(f"the step loop has stopped: {cause!r}")
            self._death.__cause__ = cause
            streams = list(self._streams.values())
            for stream in streams:
                stream.error = self._death
            self._streams.clear()
        self._wake_readers(streams)

    def _end_all(self) -> None:
        """Ends what is left when the engine is closed."""
        with self._wake:
            streams = list(self._streams.values())
            self._streams.clear()
            for stream in streams:
                self._engine.abort(stream.request.request_id)
                stream.put(_cancelled(stream.request))
            self._load = self._engine.load()
        self._wake_readers(streams)


def _yield_to_event_loops() -> None:
    """Lowers this thread's priority, and that of the threads it will compute with.

    Where there are fewer cores than threads, a caller who is answered first costs a step little,
    while one who waits for a step waits long: refusals took twice as long without it.
    """
    if sys.platform == "linux":  # elsewhere priorities are those of whole processes
        thread_id = threading.get_native_id()
        priority = os.getpriority(os.PRIO_PROCESS, thread_id) + _STEP_NICENESS
        os.setpriority(os.PRIO_PROCESS, thread_id, priority)


def _set_ready(streams: list[_Stream]) -> None:
    for stream in streams:
        stream.ready.set()


def _cancelled(request: Request) -> RequestOutput:
    outputs = [
        CompletionOutput(index, finish_reason=FinishReason.CANCELLED)
        for index in range(request.params.n)
    ]
    return RequestOutput(
        request.request_id,
        outputs,
        finished=True,
        num_prompt_tokens=len(request.prompt_token_ids),
    )
