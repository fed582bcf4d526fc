"""The threads that make pictures: one prepares them, one takes their steps, one decodes.

    put ──> waiting ──(prepare)──> ready ──> batch ──(step)──> finals, previews ──(decode)──> ended

Each does one piece of work after the other: a picture prepared, a step of the batch, something
decoded. What fails is given to the picture it concerns, and the others go on. Knows nothing of the
event loop, but that readers are to be woken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch

from services.image.loop.engine import (
    Denoised,
    Failed,
    ImageEngine,
    NotFinite,
    StepOutcome,
    Stepped,
)
from services.image.loop.jobs import DecodeTask, Job, Line, News, Stage
from services.image.loop.limits import EngineLimits
from services.image.loop.preparation import PictureModel, prepare
from services.image.loop.rate import StepRate
from services.image.loop.stats import EngineLoad, EngineObserver
from services.image.types import Finished, Pixels, Preview, PreviewKind, Progress, Times
from services.runtime.errors import Internal, NotReady, OrreryError
from services.runtime.work_health import WorkHealth

__all__ = ["Workers"]

# They are of a picture's own numbers and of its size, and say nothing of the model.
_OF_THE_PICTURE = (OrreryError, NotFinite, MemoryError, torch.OutOfMemoryError)
_PIECES = MappingProxyType(
    {
        Stage.QUEUE: "preparing a picture",
        Stage.DENOISE: "a step",
        Stage.DECODE: "decoding a picture",
    }
)


class Workers:
    """Three threads, which start with the first picture. Any thread may call any method."""

    def __init__(
        self,
        model: PictureModel,
        limits: EngineLimits,
        observer: EngineObserver,
        wake: Callable[[Sequence[Job]], None],
    ) -> None:
        """`wake`: tells the readers of these jobs that there is news; comes from the threads."""
        self._model = model
        self._limits = limits
        self._observer = observer
        self._wake = wake
        self._engine = ImageEngine(model, limits)  # called from the step thread alone
        self._telling = threading.Lock()  # the observer; taken before the other
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
        self._rate = StepRate()
        self._health = {
            stage: WorkHealth(what, limits.stuck_after_s) for stage, what in _PIECES.items()
        }
        self._num_images_done = 0
        self._batch_bytes = 0
        self._stopped: str | None = None  # why nothing new is taken
        self._closing = False

    @property
    def failure(self) -> str | None:
        """Why nothing can be made any more, or a kind of work does not go on; None = all do."""
        failures = (health.failure for health in self._health.values())
        return self._stopped or next(filter(None, failures), None)

    def load(self) -> EngineLoad:
        """As of now. Cheap."""
        with self._lock:
            return EngineLoad(
                num_running=len(self._slots),
                num_waiting=self._line.num_waiting,
                max_running=self._limits.max_running,
                max_waiting=self._limits.max_waiting,
                num_decoding=sum(job.stage is Stage.DECODE for job in self._jobs),
                num_steps_done=self._rate.num_steps,
                num_images_done=self._num_images_done,
                state_bytes=self._batch_bytes + self._line.num_bytes,
            )

    def retry_after_s(self) -> float:
        """When a picture that is under way may be done."""
        with self._lock:
            return self._rate.retry_after_s([job.plan.num_steps for job in self._jobs])

    def ensure_open(self) -> None:
        """Raises `NotReady` where nothing new is taken."""
        with self._lock:
            self._ensure_open()

    def put(self, job: Job) -> None:
        """Takes a picture into the line. Raises `NotReady` where nothing new is taken."""
        with self._lock:
            self._ensure_open()
            self._jobs.add(job)
            self._line.waiting.append(job)
            self._start_threads()
            self._to_prepare.notify()
        self._tell_load()

    def news(self, job: Job) -> News:
        """What happened to a picture since it was last asked."""
        with self._lock:
            return job.take_news()

    def end(self, job: Job, error: OrreryError | None = None) -> None:
        """Takes a picture out of wherever it is; before the next step, out of the batch."""
        with self._lock:
            self._end(job, error)
        self._tell_load()

    def refuse(self, why: str) -> None:
        """Takes nothing more."""
        with self._lock:
            self._stopped = self._stopped or why

    def stop(self, why: str) -> None:
        """Ends all pictures with `NotReady`, then the threads; returns when they have ended."""
        with self._lock:
            ended = list(self._jobs)
            for job in ended:
                self._end(job, NotReady(why, retry_after_s=1.0))
            self._closing = True
            for condition in (self._to_prepare, self._to_step, self._to_decode):
                condition.notify()
        self._wake(ended)
        for thread in self._threads:
            thread.join()

    def check_integrity(self) -> None:
        """Asserts that the parts agree; for tests, when nothing moves."""
        with self._lock:
            self._engine.check_integrity()
            assert self._engine.num_running == len(self._slots) + len(self._cancelled)
            assert all(job in self._jobs for job in self._slots.values())
            assert all(not job.ended for job in self._jobs)
            assert len(self._jobs) == self._line.num_jobs + len(self._slots)

    # --- the threads ------------------------------------------------------------------------------

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

    def _run(self, do_next: Callable[[], bool]) -> None:
        try:
            while do_next():
                self._tell_load()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing can follow
            with self._lock:
                self._stopped = "the image engine has stopped"
                jobs = list(self._jobs)
                for job in jobs:
                    self._fail(job, error)
            self._wake(jobs)

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
            job = line.waiting.popleft()
            is_in_time = self._is_in_time(job)
            line.preparing = job if is_in_time else None
        if is_in_time:
            self._prepare(job)
        if job.ended:
            self._wake([job])
        return True

    def _prepare(self, job: Job) -> None:
        self._health[Stage.QUEUE].began()
        try:
            prepared = prepare(self._model, job.request, job.plan)
        except Exception as error:  # noqa: BLE001 - it is given to whom it concerns
            with self._lock:
                self._line.preparing = None
                self._judge(Stage.QUEUE, [error])
                self._fail(job, error)
            return
        with self._lock:
            self._line.preparing = None
            self._judge(Stage.QUEUE, [None])
            if not job.ended:
                job.prepared = prepared
                self._line.ready.append(job)
                self._to_step.notify()

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
            ended = self._join()
            self._batch_bytes = self._engine.state_bytes
            if self._engine.num_running:
                self._health[Stage.DENOISE].began()
        self._wake(ended)
        outcome = self._engine.step()
        if outcome is not None:
            self._deliver(outcome)
        return True

    def _deliver(self, outcome: StepOutcome) -> None:
        readers = []
        with self._lock:
            self._rate.add(outcome.stats.num_pictures, outcome.stats.step_s)
            self._batch_bytes = self._engine.state_bytes
            failures = [e.error if isinstance(e, Failed) else None for e in outcome.events]
            self._judge(Stage.DENOISE, failures)
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
        self._wake(readers)
        self._observer.step_finished(outcome.stats)

    def _decode_next(self) -> bool:
        """Decodes the next picture, or preview when there is none. False: closing."""
        with self._lock:
            while not (self._closing or self._line.has_decode_task):
                self._to_decode.wait()
            if self._closing:
                return False
            task = self._line.decoding = self._line.take_decode_task()
        self._decode(task)
        self._wake([task.job])
        return True

    def _decode(self, task: DecodeTask) -> None:
        self._health[Stage.DECODE].began()
        try:
            pixels = self._model.decode(task.latents)
        except Exception as error:  # noqa: BLE001 - it is given to whom it concerns
            with self._lock:
                self._line.decoding = None
                self._judge(Stage.DECODE, [error])
                self._fail(task.job, error)
            return
        with self._lock:
            self._line.decoding = None
            self._judge(Stage.DECODE, [None])
            if not task.job.ended:
                self._put_pixels(task, pixels)

    # --- with the lock ----------------------------------------------------------------------------

    def _join(self) -> list[Job]:
        """First come, first served; returns those that cannot."""
        ended = []
        while self._line.ready and self._engine.num_free:
            job = self._line.ready.popleft()
            assert job.prepared is not None
            if not self._is_in_time(job):
                ended.append(job)
                continue
            try:
                job.slot_id = self._engine.add(job.prepared)
            except Exception as error:  # noqa: BLE001 - for want of memory: it is the picture's own
                self._fail(job, error)
                ended.append(job)
                continue
            job.prepared = None  # the batch has it now
            job.stage, job.started_s = Stage.DENOISE, time.monotonic()
            self._slots[job.slot_id] = job
            self._to_prepare.notify()
        return ended

    def _move_on(self, job: Job, event: Stepped | Denoised) -> None:
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

    def _put_pixels(self, task: DecodeTask, pixels: Pixels) -> None:
        job = task.job
        if task.preview_step is not None:
            if job.stage is Stage.DENOISE:  # later, the picture itself is on its way
                job.put(Preview(task.preview_step, pixels))
            return
        times = Times(
            queue_s=job.started_s - job.arrival_s,
            denoise_s=job.denoised_s - job.started_s,
            decode_s=time.monotonic() - job.denoised_s,
        )
        job.put(Finished(pixels, times))
        self._num_images_done += 1
        self._end(job)

    def _ensure_open(self) -> None:
        if self._stopped is not None:
            raise NotReady(self._stopped, retry_after_s=1.0)

    def _is_in_time(self, job: Job) -> bool:
        """Before anything costly is done for it: the event loop may be behind with its alarms."""
        if job.deadline_s > time.monotonic():
            return True
        self._end(job, job.expired())
        return False

    def _judge(self, kind: Stage, errors: Sequence[Exception | None]) -> None:
        """What a piece of work, done for one picture or several, says of the model."""
        if None in errors:
            self._health[kind].succeeded()
        else:
            blameless = all(isinstance(error, _OF_THE_PICTURE) for error in errors)
            self._health[kind].failed(blameless=blameless)

    def _fail(self, job: Job, cause: Exception) -> None:
        """Ends a picture for an error that is not its caller's."""
        error = cause if isinstance(cause, OrreryError) else Internal("the picture failed")
        if error is not cause:
            error.__cause__ = cause
        self._end(job, error)

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

    # ----------------------------------------------------------------------------------------------

    def _tell_load(self) -> None:
        """One at a time: what the observer hears last is how it is."""
        with self._telling:
            self._observer.load_changed(self.load())
