"""What the engine tells an observer: each call of the model, and its load when that changes.

The seam for metrics: the service implements `EngineObserver` and exports what it likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["EngineLoad", "EngineObserver", "NullObserver", "StepStats"]


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What the engine is doing right now, and its counters since the start. In pictures."""

    num_running: int  # in the batch
    num_waiting: int  # in line for it
    max_running: int
    max_waiting: int
    num_decoding: int  # steps done, pixels not yet
    num_steps_done: int  # a step of one picture counts one
    num_images_done: int
    state_bytes: int  # of latents, prompts and scheduler state held for the pictures above


@dataclass(frozen=True, slots=True)
class StepStats:
    """One call of the model and the step around it."""

    num_pictures: int
    num_rows: int  # a guided picture is two
    num_latent_pixels: int  # of all rows
    step_s: float
    num_failed: int  # pictures that ended with an error in it


class EngineObserver(Protocol):
    """Called with nothing locked that the engine needs; must not block."""

    def step_finished(self, stats: StepStats) -> None:
        """Comes from the engine's threads."""

    def load_changed(self, load: EngineLoad) -> None:
        """Comes from any thread, one call at a time: the last is how it is."""


class NullObserver:
    """Watches nothing."""

    def step_finished(self, stats: StepStats) -> None: ...
    def load_changed(self, load: EngineLoad) -> None: ...
