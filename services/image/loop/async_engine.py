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
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from services.image.loop.engine import Denoised, Failed, ImageEngine, StepOutcome, Stepped
from services.image.loop.jobs import DecodeTask, Job, Line, Stage
from services.image.loop.limits import EngineLimits
from services.image.loop.preparation import PictureModel, prepare
from services.image.loop.stats import EngineLoad, EngineObserver, NullObserver
from services.image.schedulers import StepPlan, make_plan
from services.image.types import (
    Event,
    Finished,
    PictureRequest,
    Pixels,
    Preview,
    PreviewKind,
    Progress,
)
from services.runtime.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotReady,
    OrreryError,
    Overloaded,
)

__all__ = ["AsyncImageEngine"]

# So many pictures in a row that failed mean that the model is broken rather than a picture.
_MAX_FAILURES = 3


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
        self._model = model
        self._limits = limits or EngineLimits()
        self._observer = observer or NullObserver()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()  # no stream is open; of the event loop alone
        self._idle.set()
        self._num_open = 0
        # The lock guards all that follows.
        self._lock = threading.Lock()
        self._to_prepare = threading.Condition(self._lock)
        self._to_step = threading.Condition(self._lock)
        self._to_decode = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._jobs: set[Job] = set()
        self._line = Line()
        self._slots: dict[int, Job] = {}  # in the batch, by slot id
        self._cancelled: list[int] = []  # slot ids to be given up before the next step
        self._rate = _StepRate()
        self._num_failures = 0  # in a row
        self._num_images_done = 0
        self._batch_bytes = 0
        self._stopped: str | None = None  # why nothing new is taken
        self._closing = False
        self._engine = ImageEngine(model, self._limits)  # called from the step thread alone

    @property
    def healthy(self) -> bool:
        """False once nothing can be made any more, or every picture lately failed."""
        return self._stopped is None and self._num_failures < _MAX_FAILURES

    def load(self) -> EngineLoad:
        """As of now. Cheap."""
        with self._lock:
            return self._load()

    def ensure_room(self, num_pictures: int) -> None:
        """Raises `Overloaded` or `NotReady` where `stream` would for one of so many pictures.

        What was found here holds until the caller next awaits: a call for several pictures is
        refused whole.
        """
        with self._lock:
            self._ensure_room(num_pictures)

    async def stream(
        self, request: PictureRequest, *, deadline_s: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of one picture: `Progress` of step 0 at once, of every step, `Finished` last.

        `deadline_s` is on `time.monotonic`. Previews come as they are decoded; one that the reader
        has not taken when the next is there is dropped. Closing the generator, or cancelling the
        task that reads it, frees at once what the picture held.

        Raises `Overloaded` (with `retry_after_s`) when the line is full, before anything is held;
        `InvalidRequest` where the noise schedule cannot be taken in so many steps;
        `DeadlineExceeded` with `stage` "queue", "denoise" or "decode"; `NotReady` when the engine
        is closed; `Internal` when the model fails on this picture.
        """
        job = self._admit(request, math.inf if deadline_s is None else deadline_s)
        self._num_open += 1
        self._idle.clear()
        alarm = None
        if deadline_s is not None:
            assert self._loop is not None
            alarm = self._loop.call_later(deadline_s - time.monotonic(), self._expire, job)
        try:
            while True:
                await job.ready.wait()
                job.ready.clear()
                with self._lock:
                    events, error, ended = job.take_events(), job.error, job.ended
                for event in events:
                    yield event
                if error is not None:
                    raise error
                if ended:
                    return
        finally:
            if alarm is not None:
                alarm.cancel()
            with self._lock:
                self._end(job)
            self._num_open -= 1
            if self._num_open == 0:
                self._idle.set()

    async def close(self, drain_timeout_s: float = 0.0) -> None:
        """Takes nothing more, gives what runs so many seconds to end, ends the rest with
        `NotReady`, and stops the threads."""
        with self._lock:
            self._stopped = self._stopped or "the service is shutting down"
        if drain_timeout_s > 0:
            with contextlib.suppress(TimeoutError):  # what is left is ended below
                await asyncio.wait_for(self._idle.wait(), drain_timeout_s)
        with self._lock:
            ended = list(self._jobs)
            for job in ended:
                self._end(job, NotReady("the service is shutting down", retry_after_s=1.0))
            self._closing = True
            for condition in (self._to_prepare, self._to_step, self._to_decode):
                condition.notify()
        _set_ready(ended)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def check_integrity(self) -> None:
        """Asserts that the parts agree; for tests, when nothing moves."""
        with self._lock:
            self._engine.check_integrity()
            assert self._engine.num_running == len(self._slots) + len(self._cancelled)
            assert all(job in self._jobs for job in self._slots.values())
            assert all(not job.ended for job in self._jobs)
            assert len(self._jobs) == self._line.num_jobs + len(self._slots)

    # --- on the event loop ----------------------------------------------------------------------

    def _ensure_room(self, num_pictures: int) -> None:
        """Needs the lock."""
        if self._stopped is not None:
            raise NotReady(self._stopped, retry_after_s=1.0)
        num_waiting = self._line.num_waiting
        num_free = self._limits.max_running - len(self._slots)  # they pass through the line
        if num_waiting + num_pictures > self._limits.max_waiting + max(num_free, 0):
            raise Overloaded(
                f"{num_waiting} pictures wait already; at most {self._limits.max_waiting} may",
                retry_after_s=self._rate.retry_after_s([job.plan.num_steps for job in self._jobs]),
            )

    def _admit(self, request: PictureRequest, deadline_s: float) -> Job:
        now_s = time.monotonic()
        if deadline_s <= now_s:
            raise _expired(Stage.QUEUE)
        self._loop = asyncio.get_running_loop()
        plan = self._plan(request)
        job = Job(request, plan, deadline_s, now_s, asyncio.Event())
        with self._lock:
            self._ensure_room(1)
            job.put(Progress(0, plan.num_steps))
            self._jobs.add(job)
            self._line.waiting.append(job)
            self._start_threads()
            self._to_prepare.notify()
        job.ready.set()
        return job

    def _plan(self, request: PictureRequest) -> StepPlan:
        strength = None if request.source is None else request.source.strength
        try:
            return make_plan(self._model.schedule, request.sampling, strength)
        except ValueError as error:  # the schedule cannot take so many steps
            raise InvalidRequest(str(error), field="num_steps") from error

    def _start_threads(self) -> None:
        """Needs the lock."""
        if self._threads:
            return
        work = {"prepare": self._prepare_next, "step": self._step_next, "decode": self._decode_next}
        for name, do_next in work.items():
            thread = threading.Thread(
                target=self._run, args=(do_next,), name=f"image-{name}", daemon=True
            )
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _expire(self, job: Job) -> None:
        with self._lock:
            self._end(job, _expired(job.stage))
        job.ready.set()

    # --- on whichever thread, with the lock ----------------------------------------------------

    def _load(self) -> EngineLoad:
        return EngineLoad(
            num_running=len(self._slots),
            num_waiting=self._line.num_waiting,
            max_running=self._limits.max_running,
            num_decoding=sum(job.stage is Stage.DECODE for job in self._jobs),
            num_steps_done=self._rate.num_steps,
            num_images_done=self._num_images_done,
            state_bytes=self._batch_bytes + self._line.num_bytes,
        )

    def _end(self, job: Job, error: OrreryError | None = None) -> None:
        """The one outcome of a picture; takes back all that it holds. Once is enough."""
        if job.ended:
            return
        job.ended, job.error = True, error
        self._jobs.discard(job)
        self._line.remove(job)
        if job.slot_id is not None and self._slots.pop(job.slot_id, None) is not None:
            self._cancelled.append(job.slot_id)
            self._to_step.notify()
        self._to_prepare.notify()

    def _fail(self, job: Job, cause: Exception) -> None:
        """Ends a picture for the model's error."""
        error = cause if isinstance(cause, OrreryError) else Internal("the picture failed")
        if error is not cause:
            error.__cause__ = cause
            self._num_failures += 1
        self._end(job, error)

    # --- in the threads --------------------------------------------------------------------------

    def _run(self, do_next: Callable[[], bool]) -> None:
        try:
            while do_next():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing can follow
            with self._lock:
                self._stopped = "the image engine has stopped"
                jobs = list(self._jobs)
                for job in jobs:
                    self._fail(job, error)
            self._wake_readers(jobs)

    def _prepare_next(self) -> bool:
        """Prepares the next picture in line, a batch's worth ahead. False: closing."""
        line = self._line
        with self._lock:
            while not self._closing and not (
                line.waiting and len(line.ready) < self._limits.max_running
            ):
                self._to_prepare.wait()
            if self._closing:
                return False
            job = line.preparing = line.waiting.popleft()
        try:
            prepared = prepare(self._model, job.request, job.plan) if self._is_wanted(job) else None
        except Exception as error:  # noqa: BLE001 - it is given to whom it concerns
            with self._lock:
                self._fail(job, error)
            prepared = None
        with self._lock:
            line.preparing = None
            if prepared is not None and not job.ended:
                job.prepared = prepared
                line.ready.append(job)
                self._to_step.notify()
        if job.ended:
            self._wake_readers([job])
        return True

    def _step_next(self) -> bool:
        """Lets pictures leave and join, then takes a step. False: closing."""
        with self._lock:
            while not (
                self._closing or self._cancelled or self._line.ready or self._engine.num_running
            ):
                self._to_step.wait()
            if self._closing:
                return False
            for slot_id in self._cancelled:
                self._engine.cancel(slot_id)
            self._cancelled.clear()
            expired = self._join()
            self._batch_bytes = self._engine.state_bytes
        self._wake_readers(expired)
        outcome = self._engine.step()
        if outcome is not None:
            self._deliver(outcome)
        return True

    def _join(self) -> list[Job]:
        """Needs the lock. First come, first served; returns those whose time was up."""
        expired = []
        now_s = time.monotonic()
        while self._line.ready and self._engine.num_free:
            job = self._line.ready.popleft()
            if job.deadline_s <= now_s:
                self._end(job, _expired(Stage.QUEUE))
                expired.append(job)
                continue
            assert job.prepared is not None
            job.slot_id = self._engine.add(job.prepared)
            job.prepared = None  # the batch has it now
            job.stage, job.started_s = Stage.DENOISE, now_s
            self._slots[job.slot_id] = job
            self._to_prepare.notify()
        return expired

    def _deliver(self, outcome: StepOutcome) -> None:
        readers = []
        with self._lock:
            self._rate.add(outcome.stats.num_pictures, outcome.stats.step_s)
            self._batch_bytes = self._engine.state_bytes
            for event in outcome.events:
                job = self._slots.get(event.slot_id)
                if job is None:  # its reader has left: the engine will hear of it
                    continue
                readers.append(job)
                if isinstance(event, Failed):
                    del self._slots[event.slot_id]
                    self._fail(job, event.error)
                else:
                    self._move_on(job, event)
            load = self._load()
        self._wake_readers(readers)
        self._observer.step_finished(outcome.stats, load)

    def _move_on(self, job: Job, event: Stepped | Denoised) -> None:
        """Needs the lock."""
        job.put(Progress(event.step, job.plan.num_steps))
        if isinstance(event, Denoised):
            del self._slots[event.slot_id]
            job.stage, job.denoised_s = Stage.DECODE, time.monotonic()
            self._line.add_final(job, event.latents)
        elif event.preview is None:
            return
        elif job.request.preview_kind is PreviewKind.LATENT:
            job.put(Preview(event.step, event.preview.float().cpu().numpy()))
            return
        else:
            self._line.add_preview(job, event.step, event.preview)
        self._to_decode.notify()

    def _decode_next(self) -> bool:
        """Decodes the next picture, or preview when there is none. False: closing."""
        with self._lock:
            while not (self._closing or self._line.has_decode_task):
                self._to_decode.wait()
            if self._closing:
                return False
            task = self._line.take_decode_task()
            self._line.decoding = task
        try:
            pixels = self._model.decode(task.latents)
        except Exception as error:  # noqa: BLE001 - it is given to whom it concerns
            with self._lock:
                self._fail(task.job, error)
        else:
            with self._lock:
                if not task.job.ended:
                    self._put_pixels(task, pixels)
        finally:
            with self._lock:
                self._line.decoding = None
        self._wake_readers([task.job])
        return True

    def _put_pixels(self, task: DecodeTask, pixels: Pixels) -> None:
        """Needs the lock."""
        job = task.job
        if task.preview_step is not None:
            if job.stage is Stage.DENOISE:  # later, the picture itself is on its way
                job.put(Preview(task.preview_step, pixels))
            return
        job.put(
            Finished(
                pixels,
                queue_s=job.started_s - job.arrival_s,
                denoise_s=job.denoised_s - job.started_s,
                decode_s=time.monotonic() - job.denoised_s,
            )
        )
        self._num_images_done += 1
        self._num_failures = 0
        self._end(job)

    def _is_wanted(self, job: Job) -> bool:
        """Before anything costly is done for it: the event loop may be behind with its alarms."""
        if job.deadline_s > time.monotonic():
            return not job.ended
        with self._lock:
            self._end(job, _expired(job.stage))
        return False

    def _wake_readers(self, jobs: Iterable[Job]) -> None:
        """One call into the event loop, however many of its streams have news."""
        readers = list(jobs)
        if not readers:
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_set_ready, readers)
        except RuntimeError:  # the loop was closed under its readers: they are gone
            with self._lock:
                for job in readers:
                    self._end(job)


class _StepRate:
    """How many pictures a second, from the steps of lately. A step of one picture counts one."""

    _WEIGHT = 0.1  # of the newest call in the moving average

    def __init__(self) -> None:
        self.num_steps = 0
        self._step_s = 0.0  # of one picture, in the company it had

    def add(self, num_pictures: int, call_s: float) -> None:
        self.num_steps += num_pictures
        step_s = call_s / num_pictures
        weight = self._WEIGHT if self._step_s else 1.0
        self._step_s += weight * (step_s - self._step_s)

    def retry_after_s(self, num_steps: list[int]) -> float:
        """When a place in the line may be free, if pictures of so many steps each are under way."""
        mean_steps = sum(num_steps) / max(1, len(num_steps))
        return max(1.0, mean_steps * self._step_s)


def _expired(stage: Stage) -> DeadlineExceeded:
    return DeadlineExceeded("the time of the request was up before its picture", stage=stage)


def _set_ready(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.ready.set()
