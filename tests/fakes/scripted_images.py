"""An image engine made of arithmetic: no torch, no model, immediate pictures.

It obeys the real engine's contract in what a transport can see: progress of every step, previews,
one `Finished`, a bounded line and batch, deadlines by stage, and giving back what a cancelled
picture held. Its pictures are a function of the request: the seed colours them, and an edit keeps
what its mask keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np

from services.image.loop.places import Places, Reservation
from services.image.loop.stats import EngineLoad
from services.image.served_model import ServedModel
from services.image.types import (
    Event,
    Finished,
    PictureRequest,
    Pixels,
    Preview,
    PreviewKind,
    Progress,
    Times,
)
from services.runtime.errors import DeadlineExceeded, Internal, NotReady

__all__ = ["ScriptedEngine", "ScriptedSettings", "picture_of", "scripted_model"]


@dataclass(frozen=True, slots=True)
class ScriptedSettings:
    """How it behaves. `step_s` is the pause before each step of each picture."""

    step_s: float = 0.0
    max_running: int = 4
    max_waiting: int = 64
    latent_channels: int = 4
    downscale: int = 8


def scripted_model() -> ServedModel:
    """A token is a word, and two stand around them."""
    return ServedModel(
        prediction_type="epsilon",
        dtype="float32",
        weight_hash="5c21d7ed",
        max_prompt_tokens=77,
        size_multiple=8,
        default_width=64,
        default_height=64,
        default_karras_sigmas=False,
        count_tokens=lambda text: len(text.split()) + 2,
    )


def picture_of(request: PictureRequest) -> Pixels:
    """What the engine makes of a request: one colour, with the source where its mask keeps it."""
    words = f"{request.prompt}|{request.negative_prompt}|{request.seed}|{request.sampling}"
    colour = np.frombuffer(hashlib.sha256(words.encode()).digest()[:3], np.uint8)
    pixels = np.empty((request.height, request.width, 3), np.uint8)
    pixels[:] = colour
    if request.source is not None and request.source.mask is not None:
        kept = request.source.mask == 0
        pixels[kept] = request.source.pixels[kept]
    return pixels


class ScriptedEngine:
    """A `services.image.service.Engine`. `requests` are all that were ever let in."""

    def __init__(self, settings: ScriptedSettings | None = None) -> None:
        self.settings = settings or ScriptedSettings()
        self.failure: str | None = None
        self.fails_on: str | None = None  # a prompt with this text fails at its second step
        self.requests: list[PictureRequest] = []
        self.started = asyncio.Event()  # a picture is at its first step
        self._slots = asyncio.Semaphore(self.settings.max_running)
        num_places = self.settings.max_running + self.settings.max_waiting
        self._places = Places(num_places, retry_after_s=lambda: 2.0)
        self._num_waiting = 0
        self._num_running = 0
        self._num_steps_done = 0
        self._num_images_done = 0
        self._closed = False

    @property
    def holds(self) -> int:
        """Places of pictures that were let in and have not ended."""
        return self._places.num_taken

    def load(self) -> EngineLoad:
        return EngineLoad(
            num_running=self._num_running,
            num_waiting=self._num_waiting,
            max_running=self.settings.max_running,
            max_waiting=self.settings.max_waiting,
            num_decoding=0,
            num_steps_done=self._num_steps_done,
            num_images_done=self._num_images_done,
            state_bytes=4096 * self.holds,
        )

    @contextmanager
    def reserve(self, num_pictures: int) -> Iterator[Reservation]:
        if self._closed:
            raise NotReady("the engine has been closed")
        with self._places.reserved(num_pictures) as reservation:
            yield reservation

    async def stream(
        self,
        request: PictureRequest,
        *,
        deadline_s: float | None = None,
        reservation: Reservation | None = None,
    ) -> AsyncGenerator[Event, None]:
        with self._places.taken(reservation):
            self.requests.append(request)
            num_steps = self._num_steps(request)
            started_s = time.monotonic()
            yield Progress(0, num_steps)
            async with self._slot(deadline_s):
                queue_s = time.monotonic() - started_s
                for step in range(1, num_steps + 1):
                    await self._step(request, step, deadline_s)
                    yield Progress(step, num_steps)
                    every = request.preview_every
                    if every and step % every == 0 and step < num_steps:
                        yield Preview(step, self._preview(request, step, num_steps))
                denoise_s = time.monotonic() - started_s - queue_s
            self._num_images_done += 1
            yield Finished(picture_of(request), Times(queue_s, denoise_s, 0.001))

    async def close(self, drain_timeout_s: float = 0.0) -> None:
        self._closed = True

    def _num_steps(self, request: PictureRequest) -> int:
        num_steps = request.sampling.num_steps
        return num_steps if request.source is None else int(num_steps * request.source.strength)

    @asynccontextmanager
    async def _slot(self, deadline_s: float | None) -> AsyncGenerator[None, None]:
        """In line for one of the batch's slots, then in it."""
        self._num_waiting += 1
        try:
            async with asyncio.timeout(_left_s(deadline_s)):
                await self._slots.acquire()
        except TimeoutError:
            raise DeadlineExceeded("the time was up in line", stage="queue") from None
        finally:
            self._num_waiting -= 1
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1
            self._slots.release()

    async def _step(self, request: PictureRequest, step: int, deadline_s: float | None) -> None:
        self.started.set()
        await asyncio.sleep(self.settings.step_s)
        if deadline_s is not None and time.monotonic() > deadline_s:
            raise DeadlineExceeded(f"the time was up after step {step - 1}", stage="denoise")
        if self.fails_on is not None and self.fails_on in request.prompt and step == 2:
            raise Internal("the model failed on this picture")
        self._num_steps_done += 1

    def _preview(self, request: PictureRequest, step: int, num_steps: int) -> Pixels | np.ndarray:
        if request.preview_kind is PreviewKind.DECODED:
            return (picture_of(request) // num_steps * step).astype(np.uint8)
        factor = self.settings.downscale
        shape = (self.settings.latent_channels, request.height // factor, request.width // factor)
        return np.full(shape, step / num_steps, np.float32)


def _left_s(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else deadline_s - time.monotonic()
