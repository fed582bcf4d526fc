"""The loop of steps: continuous batching for diffusion.

    add ──> batch ──> step: take turns, one call of the model, one step of each picture in it
    cancel ──^  │
                └──> Stepped, Stepped, ..., Denoised   or   Failed

A picture joins and leaves between any two steps; its numbers do not depend on who is beside it.
Synchronous, one thread. Knows nothing of prompts, pixels, queues and deadlines.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

import torch

from services.image.loop.denoising import Call, Denoiser, Picture
from services.image.loop.limits import EngineLimits
from services.image.loop.prepared import Prepared
from services.image.loop.stats import StepStats
from services.image.loop.turns import Turns

__all__ = ["Denoised", "Failed", "ImageEngine", "NotFinite", "StepEvent", "StepOutcome", "Stepped"]


class NotFinite(ArithmeticError):
    """A picture's latents became NaN or infinite."""


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """A picture went a step further. `preview`: its estimate without noise, where one is due."""

    slot_id: int
    step: int
    preview: torch.Tensor | None  # [C, h, w]


@dataclass(frozen=True, slots=True, eq=False)
class Denoised:
    """A picture took its last step and has left the batch."""

    slot_id: int
    step: int
    latents: torch.Tensor  # [C, h, w]


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """A picture cannot go on and has left the batch; nobody else's fault but its own."""

    slot_id: int
    error: Exception


StepEvent: TypeAlias = Stepped | Denoised | Failed


@dataclass(frozen=True, slots=True, eq=False)
class StepOutcome:
    events: list[StepEvent]
    stats: StepStats


class ImageEngine:
    """Up to `limits.max_running` pictures of any sizes, each at its own step."""

    def __init__(self, model: Denoiser, limits: EngineLimits | None = None) -> None:
        self._model = model
        self._limits = limits or EngineLimits()
        self._pictures: dict[int, Picture] = {}
        self._turns = Turns(self._limits.max_pixels_per_call)
        self._calls: dict[tuple[int, int], Call] = {}  # the last one of each size
        self._num_added = 0

    @property
    def num_running(self) -> int:
        return len(self._pictures)

    @property
    def num_free(self) -> int:
        """Places in the batch."""
        return self._limits.max_running - len(self._pictures)

    @property
    def state_bytes(self) -> int:
        """Of latents, prompts and scheduler state of the pictures in the batch.

        What is stacked for a call is counted once: a picture's latents are rows of it.
        """
        return sum(picture.state_bytes for picture in self._pictures.values())

    def add(self, prepared: Prepared) -> int:
        """Puts a picture into the batch; returns its slot id, never used again."""
        assert self.num_free > 0
        slot_id = self._num_added
        self._num_added += 1
        latents = prepared.latents
        self._pictures[slot_id] = Picture(slot_id, prepared, latents, torch.zeros_like(latents))
        self._turns.join(slot_id, prepared.size, prepared.num_rows)
        return slot_id

    def cancel(self, slot_id: int) -> None:
        """Takes a picture out of the batch. One that has left already is no error."""
        if slot_id in self._pictures:
            self._remove(slot_id)

    def step(self) -> StepOutcome | None:
        """One call of the model: the next step of those whose turn it is. None: nobody is there."""
        slot_ids = self._turns.next_call()
        if not slot_ids:
            return None
        start_s = time.perf_counter()
        pictures = [self._pictures[slot_id] for slot_id in slot_ids]
        events = [self._event(picture, error) for picture, error in self._run(pictures)]
        num_rows = sum(picture.prepared.num_rows for picture in pictures)
        height, width = pictures[0].prepared.size
        stats = StepStats(
            num_pictures=len(pictures),
            num_rows=num_rows,
            num_latent_pixels=num_rows * height * width,
            step_s=time.perf_counter() - start_s,
            num_failed=sum(isinstance(event, Failed) for event in events),
        )
        return StepOutcome(events, stats)

    def check_integrity(self) -> None:
        """Asserts that the parts agree; for tests, after anything."""
        assert len(self._pictures) <= self._limits.max_running
        assert len(self._turns) == len(self._pictures)
        assert all(slot_id in self._turns for slot_id in self._pictures)
        assert all(not picture.is_done for picture in self._pictures.values())
        sizes = {picture.prepared.size for picture in self._pictures.values()}
        assert self._calls.keys() <= sizes, "a call outlived its pictures"
        for call in self._calls.values():
            assert any(picture.slot_id in self._pictures for picture in call.pictures)

    # ------------------------------------------------------------------------------------------

    def _call(self, pictures: list[Picture]) -> Call:
        """The last call of this size where the same pictures take part, else a new one."""
        size = pictures[0].prepared.size
        call = self._calls.get(size)
        if call is None or call.pictures != tuple(pictures):
            call = self._calls[size] = Call(pictures)
        return call

    def _run(self, pictures: list[Picture]) -> list[tuple[Picture, Exception | None]]:
        """A step of each; where the call fails as a whole, of each alone, to find the guilty."""
        try:
            finite = self._call(pictures).run(self._model)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is given to whom it concerns
            if len(pictures) == 1:
                return [(pictures[0], error)]
        else:
            return [
                (picture, None if is_finite else NotFinite("the latents are not finite"))
                for picture, is_finite in zip(pictures, finite, strict=True)
            ]
        # Only here has the failed call let go of its tensors.
        return [pair for picture in pictures for pair in self._run([picture])]

    def _event(self, picture: Picture, error: Exception | None) -> StepEvent:
        event: StepEvent
        try:
            event = _news(picture) if error is None else Failed(picture.slot_id, error)
        except Exception as failure:  # noqa: BLE001 - for want of memory: it is the picture's own
            event = Failed(picture.slot_id, failure)
        if not isinstance(event, Stepped):
            self._remove(picture.slot_id)
        return event

    def _remove(self, slot_id: int) -> None:
        """Gives back all that the picture held; its rows of a stacked call go with the next step of
        the others."""
        picture = self._pictures.pop(slot_id)
        self._turns.leave(slot_id)
        size = picture.prepared.size
        call = self._calls.get(size)
        if call is not None and picture in call.pictures:
            del self._calls[size]


def _news(picture: Picture) -> Stepped | Denoised:
    """What its step came to. The tensors are of their own, not rows of a call."""
    if picture.is_done:
        return Denoised(picture.slot_id, picture.step, picture.latents.clone())
    every = picture.prepared.preview_every
    is_due = every > 0 and picture.step % every == 0
    return Stepped(picture.slot_id, picture.step, picture.preview() if is_due else None)
