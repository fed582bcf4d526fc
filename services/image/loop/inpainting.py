"""Masks: which part of a source is painted anew, at the size of latents.

As diffusers' inpainting pipeline has it: a latent pixel is painted where the mask's pixel at its
upper left corner is. Knows no model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["latent_mask", "painted"]

_HALF = 127.5


def painted(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where a mask `[height, width]` of 0 to 255 asks for new pixels."""
    anew: npt.NDArray[np.bool_] = mask > _HALF
    return anew


def latent_mask(mask: npt.NDArray[np.uint8], downscale: int) -> torch.Tensor:
    """`[1, height / downscale, width / downscale]`, float32: 1 = painted anew, 0 = kept."""
    corners = painted(mask)[::downscale, ::downscale]
    return torch.from_numpy(corners.astype(np.float32))[None]
