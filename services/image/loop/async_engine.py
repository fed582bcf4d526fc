"""The engine for asyncio: pictures as streams of events, the work in three threads.

    event loop            prepare thread            step thread             decode thread
    stream() ──> line ──> prompts, source ──> ready ──> batch, step by step ──> pixels
       ^                                                  │ progress              │ previews, result
       └──────────────────── one wake-up per step ────────┴───────────────────────┘

The batch's steps go on while prompts are encoded and pictures decoded. Closing a stream, or its
deadline, takes the picture out of wherever it is, before the next step. Knows nothing of gRPC, PNG
or Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

from services.image.loop.jobs import Job
from services.image.loop.limits import EngineLimits
from services.image.loop.places import Places, Reservation
from services.image.loop.preparation import PictureModel
from services.image.loop.stats import EngineLoad, EngineObserver, NullObserver
from services.image.loop.workers import Workers
from services.image.schedulers import ImpossiblePlan, StepPlan, make_plan
from services.image.types import Event, PictureRequest, Progress
from services.runtime.errors import InvalidRequest

__all__ = ["AsyncImageEngine"]

_CLOSING = "the service is shutting down"


class AsyncImageEngine:
    """Makes pictures on `model`, which it then owns: nobody else may call it.

    Used from one event loop. The threads start with the first picture.
    """

    def __init__(
        self,
        model: PictureModel,
        limits: EngineLimits | None = None,
        observer: EngineObserver | None = None,
    ) -> None:
        limits = limits or EngineLimits()
        self._model = model
        self._workers = Workers(model, limits, observer or NullObserver(), self._wake)
        num_places = limits.max_running + limits.max_waiting
        self._places = Places(num_places, self._workers.retry_after_s)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def failure(self) -> str | None:
        """Why no picture is to be expected any more; None = they are made."""
        return self._workers.failure

    def load(self) -> EngineLoad:
        """As of now. Cheap."""
        return self._workers.load()

    @contextlib.contextmanager
    def reserve(self, num_pictures: int) -> Iterator[Reservation]:
        """Places for the pictures of a call, which `stream` takes; what is left is given back at
        the end. A call that is let in here is not refused for want of room any more.

        Raises `Overloaded` (with `retry_after_s`) unless there is room for all, or `NotReady`.
        """
        self._workers.ensure_open()
        with self._places.reserved(num_pictures) as reservation:
            yield reservation

    async def stream(
        self,
        request: PictureRequest,
        *,
        deadline_s: float | None = None,
        reservation: Reservation | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of one picture: `Progress` of step 0 at once, of every step, `Finished` last.

        `deadline_s` is on `time.monotonic`. Previews come as they are decoded; one that the reader
        has not taken when the next is there is dropped. Closing the generator, or cancelling the
        task that reads it, frees at once what the picture held.

        Raises `Overloaded` (with `retry_after_s`) where there is neither a reservation nor a place,
        before anything is held; `InvalidRequest` naming "num_steps" or "strength" where the noise
        schedule cannot be taken in so many steps; `DeadlineExceeded` with `stage` "queue",
        "denoise" or "decode"; `NotReady` when the engine is closed; `Internal` when the model fails
        on this picture.
        """
        job = self._job(request, math.inf if deadline_s is None else deadline_s)
        with self._places.taken(reservation), self._alarm(job):
            self._workers.put(job)
            try:
                while True:
                    await job.ready.wait()
                    job.ready.clear()
                    news = self._workers.news(job)
                    for event in news.events:
                        yield event
                    if news.error is not None:
                        raise news.error
                    if news.ended:
                        return
            finally:
                self._workers.end(job)

    async def close(self, drain_timeout_s: float = 0.0) -> None:
        """Takes nothing more, gives what runs so many seconds to end, ends the rest with
        `NotReady`, and stops the threads."""
        self._workers.refuse(_CLOSING)
        if drain_timeout_s > 0:
            with contextlib.suppress(TimeoutError):  # what is left is ended below
                await asyncio.wait_for(self._places.wait_until_free(), drain_timeout_s)
        await asyncio.to_thread(self._workers.stop, _CLOSING)

    def check_integrity(self) -> None:
        """Asserts that the parts agree; for tests, when nothing moves."""
        self._workers.check_integrity()

    def _job(self, request: PictureRequest, deadline_s: float) -> Job:
        """Not in the line yet; its reader's first news is that it waits."""
        self._loop = asyncio.get_running_loop()
        plan = self._plan(request)
        job = Job(request, plan, deadline_s, time.monotonic(), asyncio.Event())
        if deadline_s <= job.arrival_s:
            raise job.expired()
        job.put(Progress(0, plan.num_steps))
        job.ready.set()
        return job

    def _plan(self, request: PictureRequest) -> StepPlan:
        strength = None if request.source is None else request.source.strength
        try:
            return make_plan(self._model.schedule, request.sampling, strength)
        except ImpossiblePlan as error:
            raise InvalidRequest(str(error), field=error.field) from error

    @contextlib.contextmanager
    def _alarm(self, job: Job) -> Iterator[None]:
        """Ends the picture when its time is up, whether its reader reads or not."""
        if job.deadline_s == math.inf:
            yield
            return
        alarm = asyncio.get_running_loop().call_later(
            job.deadline_s - time.monotonic(), self._expire, job
        )
        try:
            yield
        finally:
            alarm.cancel()

    def _expire(self, job: Job) -> None:
        self._workers.end(job, job.expired())
        job.ready.set()

    def _wake(self, jobs: Sequence[Job]) -> None:
        """From a thread: one call into the event loop, however many of its streams have news."""
        if not jobs:
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_set_ready, jobs)
        except RuntimeError:  # the loop was closed under its readers: they are gone
            for job in jobs:
                self._workers.end(job)


def _set_ready(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.ready.set()
