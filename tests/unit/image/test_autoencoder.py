"""Pixels to latents and back, whole and in tiles, as diffusers' autoencoder does both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from services.image.model.autoencoder import Autoencoder
from services.image.types import Pixels
from tests.fakes.random_diffusion import random_diffusion_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_diffusion_folder(tmp_path_factory.mktemp("model")) / "vae"


def _load(folder: Path) -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(folder).eval()


def _noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class _LargestInput:
    """The largest height or width that went through a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.side = 0
        module.register_forward_pre_hook(self._look)

    def _look(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.side = max(self.side, *inputs[0].shape[-2:])


def test_encode_draws_from_the_posterior_with_the_generator(folder: Path) -> None:
    pixels = _noise(32, 48)
    got = Autoencoder(_load(folder), 512).encode(pixels, torch.Generator().manual_seed(5))
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        posterior = _load(folder).encode(values).latent_dist
        expected = 0.5 * posterior.sample(torch.Generator().manual_seed(5))[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (got - 0.5 * posterior.mean[0]).abs().max() > 0.01


def test_encode_sees_grey_where_erased(folder: Path) -> None:
    autoencoder = Autoencoder(_load(folder), 512)
    erased = np.zeros((32, 32), np.bool_)
    erased[8:20, 4:30] = True
    one, other = _noise(32, 32), _noise(32, 32)
    other[erased] = 7
    latents = [
        autoencoder.encode(pixels, torch.Generator().manual_seed(0), erased)
        for pixels in (one, other)
    ]
    assert torch.equal(*latents)


def test_decode_in_tiles_equals_diffusers_in_tiles(folder: Path) -> None:
    latents = torch.randn(4, 20, 26, generator=torch.Generator().manual_seed(0))
    got = Autoencoder(_load(folder), 32).decode(latents)
    reference = _load(folder)
    reference.enable_tiling()
    reference.tile_latent_min_size, reference.tile_sample_min_size = 8, 32
    with torch.inference_mode():
        expected = reference.tiled_decode(latents[None] / 0.5).sample[0]
    expected = ((expected * 0.5 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)
    assert got.shape == (80, 104, 3)
    np.testing.assert_array_equal(got, expected.numpy().astype(np.uint8))


def test_picture_within_one_tile_is_decoded_whole(folder: Path) -> None:
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = _load(folder).decode(latents[None] / 0.5).sample[0]
    expected = ((expected * 0.5 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)
    got = Autoencoder(_load(folder), 32).decode(latents)
    np.testing.assert_array_equal(got, expected.numpy().astype(np.uint8))


def test_tiles_bound_what_goes_through_at_once(folder: Path) -> None:
    model = _load(folder)
    decoder, encoder = _LargestInput(model.decoder), _LargestInput(model.encoder)
    autoencoder = Autoencoder(model, 70)
    assert autoencoder.tile_size == 64
    autoencoder.decode(torch.zeros(4, 40, 50))
    latents = autoencoder.encode(_noise(160, 200), torch.Generator())
    assert latents.shape == (4, 40, 50)
    assert (decoder.side, encoder.side) == (16, 64)


def test_tiles_leave_no_seam(folder: Path) -> None:
    """Even latents give an even picture: no step where tiles meet, beyond a tile's own border."""
    latents = torch.full((4, 40, 8), 0.3)
    rows = Autoencoder(_load(folder), 64).decode(latents).astype(int)[12:-12, 16]
    whole = Autoencoder(_load(folder), 512).decode(latents).astype(int)[12:-12, 16]
    steps, expected = np.abs(np.diff(rows, axis=0)), np.abs(np.diff(whole, axis=0))
    assert steps.max() <= expected.max() + 12
