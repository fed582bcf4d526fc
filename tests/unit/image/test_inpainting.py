"""Masks at the size of latents, as diffusers' inpainting pipeline makes them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from services.image.loop.inpainting import latent_mask, painted


def test_latent_mask_equals_diffusers() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (32, 48), dtype=np.uint8)
    processor = VaeImageProcessor(
        vae_scale_factor=8, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    whole = processor.preprocess(Image.fromarray(mask))
    expected = torch.nn.functional.interpolate(whole, size=(4, 6))[0]
    assert torch.equal(latent_mask(mask, 8), expected)
    np.testing.assert_array_equal(painted(mask), whole[0, 0].numpy() >= 0.5)
