"""Where a picture begins: from noise, from a source, or from a source with a mask.

Everything random comes from the request's generator, in the order in which diffusers' pipelines
draw, so that a seed means the same picture here and there. After this the generator stands where
the steps' own noise begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from services.image.loop.inpainting import latent_mask, painted
from services.image.schedulers.plan import StepPlan
from services.image.types import PictureRequest, Pixels, Source

__all__ = ["Beginning", "Kept", "PictureEncoder", "begin"]


class PictureEncoder(Protocol):
    """The part of a model that a beginning needs."""

    @property
    def latent_channels(self) -> int: ...
    @property
    def downscale(self) -> int: ...
    @property
    def is_inpainting(self) -> bool:
        """Whether the UNet sees a mask and the picture without what it covers."""
        ...

    def encode_picture(
        self,
        pixels: Pixels,
        generator: torch.Generator,
        erased: npt.NDArray[np.bool_] | None = None,
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is put back after every step: the source where the mask is 0, noised to that step.

    `x = mask * x + (1 - mask) * (to_source * source + to_noise * noise)`, with the plan's `keep`.
    """

    mask: torch.Tensor  # [1, h, w], 1 = painted anew
    source: torch.Tensor  # [C, h, w]
    noise: torch.Tensor  # [C, h, w]


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    latents: torch.Tensor  # [C, h, w], noised as the first step expects
    kept: Kept | None = None
    model_channels: torch.Tensor | None = None  # [1 + C, h, w], for an inpainting UNet


def begin(
    model: PictureEncoder, request: PictureRequest, plan: StepPlan, generator: torch.Generator
) -> Beginning:
    """Draws what precedes the first step. Tensors are where `model.encode_picture` puts them;
    noise is drawn on the CPU.
    """
    if model.is_inpainting:
        return _for_inpainting_model(model, request, plan, generator)
    source = request.source
    if source is None:
        return Beginning(plan.initial_noise_scale * _noise(model, request, generator))
    latents = model.encode_picture(source.pixels, generator)
    noise = _noise(model, request, generator).to(latents.device)
    noised = plan.start.source * latents + plan.start.noise * noise
    if source.mask is None:
        return Beginning(noised)
    # diffusers encodes the source without what is erased here too, and does not look at it.
    _noise(model, request, generator)
    mask = latent_mask(source.mask, model.downscale).to(latents.device)
    pure = source.strength == 1.0
    return Beginning(
        plan.initial_noise_scale * noise if pure else noised, Kept(mask, latents, noise)
    )


def _for_inpainting_model(
    model: PictureEncoder, request: PictureRequest, plan: StepPlan, generator: torch.Generator
) -> Beginning:
    """Without a mask all is painted anew; without a source, all of a grey picture."""
    source = request.source or Source(
        np.zeros((request.height, request.width, 3), np.uint8), strength=1.0
    )
    mask = source.mask
    if mask is None:
        mask = np.full((request.height, request.width), 255, np.uint8)
    if source.strength == 1.0:
        latents = plan.initial_noise_scale * _noise(model, request, generator)
    else:
        encoded = model.encode_picture(source.pixels, generator)
        noise = _noise(model, request, generator).to(encoded.device)
        latents = plan.start.source * encoded + plan.start.noise * noise
    seen = model.encode_picture(source.pixels, generator, painted(mask))
    small_mask = latent_mask(mask, model.downscale).to(seen.device)
    return Beginning(latents.to(seen.device), model_channels=torch.cat([small_mask, seen]))


def _noise(
    model: PictureEncoder, request: PictureRequest, generator: torch.Generator
) -> torch.Tensor:
    height, width = request.height // model.downscale, request.width // model.downscale
    return torch.randn((model.latent_channels, height, width), generator=generator)
