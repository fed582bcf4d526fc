"""A picture model of plain arithmetic, for tests of the threads around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from services.image.schedulers import NoiseSchedule
from services.image.types import PictureRequest, Pixels, Sampling, SchedulerName
from tests.fakes.random_diffusion import SCHEDULER_CONFIG
from tests.unit.image.toy import BAD, Broken, ToyDenoiser

__all__ = ["BROKEN", "NOT_A_NUMBER", "UNREADABLE", "ToyModel", "toy_request"]

# Prompts that break the model: when they are encoded, in the steps, in the numbers.
UNREADABLE = "unreadable"
BROKEN = "broken"
NOT_A_NUMBER = "not a number"
_FIRST = {BROKEN: BAD, NOT_A_NUMBER: float("nan")}


class Gate:
    """Holds a thread up until it is let through. Open unless closed."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._permits = threading.Semaphore(0)
        self.is_reached = threading.Event()

    def close(self) -> None:
        self._open.clear()

    def let(self, count: int) -> None:
        self._permits.release(count)

    def open(self) -> None:
        self._open.set()
        self._permits.release(1)

    def pass_through(self) -> None:
        self.is_reached.set()
        if not self._open.is_set():
            assert self._permits.acquire(timeout=20), "nobody let the model go on"


class ToyModel:
    """Latents are half the picture's size. A gate before each kind of work."""

    latent_channels = 3
    downscale = 2
    is_inpainting = False
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.schedule = NoiseSchedule.from_config(SCHEDULER_CONFIG)
        self.denoiser = ToyDenoiser()
        self.prompts, self.steps, self.pixels = Gate(), Gate(), Gate()
        self.denoiser.before_call = lambda: self.steps.pass_through()
        self.on_decode: Callable[[], None] = lambda: None
        self.num_decoded = 0

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        self.prompts.pass_through()
        if UNREADABLE in texts:
            raise Broken("a text that cannot be encoded")
        contexts = torch.zeros(len(texts), 2, 4)
        for i, text in enumerate(texts):
            contexts[i, 0, 0] = _FIRST.get(text, len(text) / 100)
        return contexts

    def encode_picture(
        self, pixels: Pixels, generator: torch.Generator, erased: Any = None
    ) -> torch.Tensor:
        small = torch.from_numpy(pixels[::2, ::2].copy()).permute(2, 0, 1).float() / 255
        return small + 0.01 * torch.randn(small.shape, generator=generator)

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        return self.denoiser.predict(latents, timesteps, context)

    def decode(self, latents: torch.Tensor) -> Pixels:
        self.pixels.pass_through()
        self.on_decode()
        self.num_decoded += 1
        large = latents.repeat_interleave(2, 1).repeat_interleave(2, 2)
        pixels = (large.sigmoid() * 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def toy_request(seed: int = 0, **changes: Any) -> PictureRequest:
    """Fields of the request and of its sampling by their names."""
    sampling: dict[str, Any] = {
        "num_steps": 5,
        "scheduler": SchedulerName.DDIM,
        "guidance_scale": 5.0,
    }
    sampling |= {name: changes.pop(name) for name in list(changes) if name in _SAMPLING}
    fields: dict[str, Any] = {
        "prompt": "a toy",
        "negative_prompt": "",
        "width": 8,
        "height": 8,
        "seed": seed,
    }
    return PictureRequest(**(fields | changes), sampling=Sampling(**sampling))


_SAMPLING = frozenset(
    {"num_steps", "scheduler", "guidance_scale", "guidance_rescale", "eta", "karras_sigmas"}
)
