"""The words of the image service: one picture to be made, what happens to it, what became of it.

Plain values between the service, the engine and the model. Knows nothing of protobuf, asyncio or
Ray. Pixels are `uint8 [height, width, 3]`, RGB; latents are `float32 [channels, height / f,
width / f]`, where `f` is what the autoencoder divides by.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Event",
    "Finished",
    "Latents",
    "PictureRequest",
    "Pixels",
    "Preview",
    "PreviewKind",
    "Progress",
    "Sampling",
    "SchedulerName",
    "Source",
    "Times",
]

Pixels: TypeAlias = npt.NDArray[np.uint8]
Latents: TypeAlias = npt.NDArray[np.float32]


class SchedulerName(StrEnum):
    DDIM = "ddim"
    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    DPM_SOLVER_PP_2M = "dpm_solver_pp_2m"


class PreviewKind(StrEnum):
    DECODED = "decoded"
    LATENT = "latent"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the noise is taken away. Checked by whoever made it: the engine takes it as it is."""

    num_steps: int
    scheduler: SchedulerName
    guidance_scale: float  # 1.0 = no guidance: no unconditional row
    guidance_rescale: float = 0.0
    eta: float = 0.0  # of DDIM
    karras_sigmas: bool = False  # not of DDIM


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A picture to begin from, as large as what is made of it."""

    pixels: Pixels
    strength: float  # in (0, 1]
    # `uint8 [height, width]`, 255 = painted anew, 0 = kept. None: the whole picture is.
    mask: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PictureRequest:
    """One picture. Its result depends on nothing but this and the weights."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    sampling: Sampling
    source: Source | None = None
    preview_every: int = 0  # steps; 0 = no previews
    preview_kind: PreviewKind = PreviewKind.DECODED


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` of `num_steps` is done; 0 = it was accepted."""

    step: int
    num_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """The model's estimate of the picture without noise: pixels, or latents, as asked."""

    step: int
    content: Pixels | Latents


@dataclass(frozen=True, slots=True)
class Times:
    """Of a picture, in seconds: in line, in the loop of steps, in decoding."""

    queue_s: float
    denoise_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The last event of a picture."""

    pixels: Pixels
    times: Times


Event: TypeAlias = Progress | Preview | Finished
