"""A picture on its way through the engine, and the line it stands in.

    waiting ──(prepare)──> ready ──> in the batch ──> finals ──(decode)──> ended
                                        └── previews ──┘

Plain bookkeeping: whoever calls holds the engine's lock. Knows nothing of threads and models.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

import torch

from services.image.loop.prepared import Prepared
from services.image.schedulers import StepPlan
from services.image.types import Event, PictureRequest, Preview
from services.runtime.errors import DeadlineExceeded, OrreryError

__all__ = ["DecodeTask", "Job", "Line", "News", "Stage"]


class Stage(StrEnum):
    """Where a picture is; the word that a deadline's error says."""

    QUEUE = "queue"
    DENOISE = "denoise"
    DECODE = "decode"


class News(NamedTuple):
    """What a reader has not heard yet."""

    events: list[Event]
    error: OrreryError | None
    ended: bool


@dataclass(eq=False, slots=True)
class Job:
    """A picture and the way back to its reader. Seconds are on `time.monotonic`."""

    request: PictureRequest
    plan: StepPlan
    deadline_s: float  # infinite = none
    arrival_s: float
    ready: asyncio.Event  # there is something to read; set on the event loop alone
    stage: Stage = Stage.QUEUE
    events: deque[Event] = field(default_factory=deque)
    error: OrreryError | None = None
    ended: bool = False  # nothing more will come
    prepared: Prepared | None = None  # until it joins the batch
    slot_id: int | None = None  # in the batch
    preview: tuple[int, torch.Tensor] | None = None  # step and latents of the next to decode
    latents: torch.Tensor | None = None  # denoised, until decoded
    decode_turn: int = 0  # on the line's virtual time
    started_s: float = 0.0
    denoised_s: float = 0.0

    def put(self, event: Event) -> None:
        """Adds an event; a preview takes the place of one that was not read."""
        if isinstance(event, Preview):
            self.events = deque(each for each in self.events if not isinstance(each, Preview))
        self.events.append(event)

    def take_news(self) -> News:
        events = list(self.events)
        self.events.clear()
        return News(events, self.error, self.ended)

    def expired(self) -> DeadlineExceeded:
        """The error of its deadline, which says where it was."""
        message = "the time of the request was up before its picture"
        return DeadlineExceeded(message, stage=self.stage)


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """Latents to be decoded. `preview_step` None: the picture itself."""

    job: Job
    latents: torch.Tensor
    preview_step: int | None


class Line:
    """The jobs outside the batch, in order: to be prepared, to join, to be decoded."""

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self.preparing: Job | None = None
        self.ready: deque[Job] = deque()
        self.decoding: DecodeTask | None = None
        self._finals: deque[Job] = deque()
        self._virtual_time = 0  # of decoding, in latent numbers
        self._previews: deque[Job] = deque()

    @property
    def num_waiting(self) -> int:
        """Not in the batch yet."""
        return len(self.waiting) + len(self.ready) + (self.preparing is not None)

    @property
    def num_jobs(self) -> int:
        """All of them; those being prepared or decoded may have ended already."""
        at_work = [self.preparing, None if self.decoding is None else self.decoding.job]
        alive = sum(job is not None and not job.ended for job in at_work)
        return len(self.waiting) + len(self.ready) + len(self._finals) + alive

    @property
    def num_bytes(self) -> int:
        """Of what was prepared, and of latents that wait to be decoded or are."""
        held = sum(job.prepared.num_bytes for job in self.ready if job.prepared is not None)
        held += sum(job.latents.nbytes for job in self._finals if job.latents is not None)
        held += sum(job.preview[1].nbytes for job in self._previews if job.preview is not None)
        return held + (0 if self.decoding is None else self.decoding.latents.nbytes)

    @property
    def has_decode_task(self) -> bool:
        return bool(self._finals or self._previews)

    def add_final(self, job: Job, latents: torch.Tensor) -> None:
        """A preview not decoded yet is not worth decoding any more."""
        job.latents = latents
        job.decode_turn = self._virtual_time + latents.numel()
        self._finals.append(job)
        if job in self._previews:
            self._previews.remove(job)
        job.preview = None

    def add_preview(self, job: Job, step: int, latents: torch.Tensor) -> None:
        """The latest wins: what decoding is too slow for is dropped."""
        if job.preview is None:
            self._previews.append(job)
        job.preview = (step, latents)

    def take_decode_task(self) -> DecodeTask:
        """Pictures before previews, and by fair queueing as in `turns`: a small picture goes before
        large ones that came first, but not any number of them before a large one."""
        if self._finals:
            job = min(self._finals, key=attrgetter("decode_turn"))
            self._finals.remove(job)
            self._virtual_time = job.decode_turn
            assert job.latents is not None
            return DecodeTask(job, job.latents, None)
        job = self._previews.popleft()
        assert job.preview is not None
        (step, latents), job.preview = job.preview, None
        return DecodeTask(job, latents, step)

    def remove(self, job: Job) -> None:
        """Takes a job out of wherever it is, and all that it holds."""
        for line in (self.waiting, self.ready, self._finals, self._previews):
            if job in line:
                line.remove(job)
        job.prepared = job.preview = job.latents = None
