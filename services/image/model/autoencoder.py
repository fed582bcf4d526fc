"""Pixels to latents and back: Stable Diffusion's variational autoencoder.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752).
Always in float32: it runs once for a picture, and half precision overflows in it. A picture larger
than a tile goes through in overlapping tiles that are blended, which bounds the memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from services.image.model.modules import parameter_bytes
from services.image.types import Pixels

__all__ = ["Autoencoder"]


class Autoencoder:
    """Any thread may call it; it keeps no state. `f` is what it divides the size by."""

    def __init__(self, model: AutoencoderKL, tile_size: int) -> None:
        """`tile_size`: in pixels a side, rounded down to what the tiles' overlap divides."""
        self._model = model
        self._scale = float(model.config.scaling_factor)
        self.latent_channels = int(model.config.latent_channels)
        self.downscale: int = 2 ** (len(model.config.block_out_channels) - 1)
        # A quarter of a tile overlaps the next: whole latent pixels, or the seams do not meet.
        latent_tile = max(tile_size // self.downscale // 4, 1) * 4
        model.tile_latent_min_size = latent_tile
        model.tile_sample_min_size = latent_tile * self.downscale
        model.enable_tiling()

    @property
    def parameter_bytes(self) -> int:
        return parameter_bytes(self._model)

    @property
    def tile_size(self) -> int:
        """Pixels a side of what is decoded at once."""
        return int(self._model.tile_sample_min_size)

    @torch.inference_mode()
    def encode(
        self,
        pixels: Pixels,
        generator: torch.Generator,
        erased: npt.NDArray[np.bool_] | None = None,
    ) -> torch.Tensor:
        """Latents `[C, height / f, width / f]` drawn from the posterior, one number of
        `generator` (on the CPU) for each. What is `erased` becomes grey before.
        """
        values = torch.tensor(pixels, device=self._model.device, dtype=torch.float32)
        values = values.permute(2, 0, 1)[None] / 255 * 2 - 1
        if erased is not None:
            values *= torch.tensor(~erased, device=self._model.device)
        posterior = self._model.encode(values.contiguous()).latent_dist
        latents: torch.Tensor = self._scale * posterior.sample(generator)[0]
        return latents

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> Pixels:
        """`[C, h, w]` to `uint8 [h * f, w * f, 3]`."""
        values = self._model.decode(latents[None].float() / self._scale).sample[0]
        levels = (values * 0.5 + 0.5).clamp(0, 1) * 255
        pixels: Pixels = levels.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels
