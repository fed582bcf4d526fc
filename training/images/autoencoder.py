"""Train the autoencoder of `orrery-diffusion`: 64x64 pictures to 16x16 latents of 4 channels.

Learns from pictures drawn on the fly, half of them crowded with objects so that every one has many
edges to learn. Knows nothing of captions and of diffusion.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from training.images.drawing import Pixels, draw_many
from training.images.optimizer import MixedOptimizer
from training.images.scenes import (
    BACKGROUNDS,
    COLOURS,
    PICTURE_SIZE,
    SHAPES,
    Scene,
    SceneObject,
    draw_scene,
)

RUN = Path(__file__).parent.parent / "runs" / "diffusion"
DOWNSCALING = 4


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Sizes and schedule. Widths leave 32 channels to a norm's group: few are slow on CPUs."""

    widths: tuple[int, ...] = (32, 64, 64)
    norm_groups: int = 2
    latent_channels: int = 4
    steps: int = 1200
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    edge_weight: float = 0.5
    kl_weight: float = 1e-3
    checkpoint_every: int = 100
    seed: int = 7


def build_autoencoder(recipe: AutoencoderRecipe) -> AutoencoderKL:
    """The network of random weights; plain convolutions, no attention."""
    levels = len(recipe.widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.widths,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=recipe.norm_groups,
        sample_size=PICTURE_SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,  # `normalise` makes it so
    )


def training_record() -> dict[str, Any]:
    """Seconds and history of the run so far."""
    saved = torch.load(RUN / "autoencoder.pt", map_location="cpu", weights_only=True)
    return {"seconds": saved["seconds"], "history": saved["history"]}


def as_input(pictures: Pixels) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in -1..1, channels last in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def training_pictures(recipe: AutoencoderRecipe, first_step: int) -> Iterator[torch.Tensor]:
    """Batches from `first_step` on: scenes as they are, and crowded ones, half and half."""
    for step in itertools.count(first_step):
        rng = random.Random(f"autoencoder {recipe.seed} {step}")
        half = recipe.batch_size // 2
        scenes = [draw_scene(rng, held_out=False) for _ in range(recipe.batch_size - half)]
        scenes += [crowded_scene(rng) for _ in range(half)]
        yield as_input(draw_many(scenes))


def crowded_scene(rng: random.Random) -> Scene:
    """Objects of all looks in a 3x3 grid: not a scene that a caption tells of."""
    step = PICTURE_SIZE / 3
    things = tuple(
        SceneObject(
            rng.choice(SHAPES),
            rng.choice(tuple(COLOURS)),
            "small",
            (column + 0.5) * step + rng.uniform(-3, 3),
            (row + 0.5) * step + rng.uniform(-3, 3),
            rng.uniform(6.5, 9.0) if rng.random() < 0.8 else rng.uniform(9.0, 13.0),
        )
        for row, column in itertools.product(range(3), repeat=2)
    )
    return Scene("count", rng.choice(BACKGROUNDS), things)


def train_autoencoder(recipe: AutoencoderRecipe, device: torch.device) -> AutoencoderKL:
    """Train, or go on from the checkpoint; the result has normalised latents."""
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(recipe).to(device, memory_format=torch.channels_last)
    optimizer = MixedOptimizer(model, weight_decay=0.0)
    path = RUN / "autoencoder.pt"
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    if path.exists():
        saved = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(saved.pop("model"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state = saved
    started = time.monotonic() - state["seconds"]
    pictures = training_pictures(recipe, state["step"])
    while state["step"] < recipe.steps:
        rate = recipe.learning_rate * _rate_factor(recipe, state["step"])
        batch = next(pictures).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss, error = _losses(model, batch, recipe)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(rate)
        state["step"] += 1
        state["seconds"] = time.monotonic() - started
        if state["step"] % 20 == 0:
            state["history"].append({"step": state["step"], "error": float(error.detach())})
        if state["step"] % recipe.checkpoint_every == 0 or state["step"] == recipe.steps:
            RUN.mkdir(parents=True, exist_ok=True)
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state}
            torch.save(saved, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            psnr = held_out_psnr(model, num_pictures=64)
            print(
                f"autoencoder step {state['step']} error {float(error.detach()):.4f} "
                f"psnr {psnr:.2f} dB {state['seconds']:.0f} s",
                flush=True,
            )
    model.eval()
    normalise(model, num_pictures=512)
    return model


@torch.no_grad()
def held_out_psnr(model: AutoencoderKL, num_pictures: int) -> float:
    """Peak signal-to-noise ratio in dB of held-out pictures there and back."""
    rng = random.Random("autoencoder psnr")
    scenes = [draw_scene(rng, held_out=True) for _ in range(num_pictures)]
    pictures = as_input(draw_many(scenes)).to(model.device)
    again = model.decode(model.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    return float(10 * torch.log10(4.0 / (again - pictures).square().mean()))


@torch.no_grad()
def normalise(model: AutoencoderKL, num_pictures: int) -> None:
    """Fold mean and deviation of each latent channel into the 1x1 convolutions beside the latents.

    Sampled latents of pictures then have mean 0 and variance 1 per channel: `scaling_factor` is 1.
    """
    rng = random.Random("autoencoder normalise")
    scenes = [draw_scene(rng, held_out=False) for _ in range(num_pictures)]
    means, variances = [], []
    for first in range(0, num_pictures, 64):
        pictures = as_input(draw_many(scenes[first : first + 64])).to(model.device)
        posterior = model.encode(pictures).latent_dist
        means.append(posterior.mean)
        variances.append(posterior.var)
    places = (0, 2, 3)
    centre = torch.cat(means).mean(places)
    spread = (torch.cat(means).var(places) + torch.cat(variances).mean(places)).sqrt()
    inward, outward = model.quant_conv, model.post_quant_conv
    channels = len(centre)
    outward.bias += outward.weight[:, :, 0, 0] @ centre
    outward.weight *= spread[None, :, None, None]
    inward.weight[:channels] /= spread[:, None, None, None]
    inward.bias[:channels] = (inward.bias[:channels] - centre) / spread
    inward.bias[channels:] -= 2 * spread.log()


def _losses(
    model: AutoencoderKL, pictures: torch.Tensor, recipe: AutoencoderRecipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute error of pixels and of their differences, and the KL divergence; and the first."""
    posterior = model.encode(pictures).latent_dist
    again = model.decode(posterior.sample()).sample.float()
    error = F.l1_loss(again, pictures)
    edges = F.l1_loss(again.diff(dim=-1), pictures.diff(dim=-1))
    edges = edges + F.l1_loss(again.diff(dim=-2), pictures.diff(dim=-2))
    divergence = posterior.kl().mean() / posterior.mean[0].numel()
    return error + recipe.edge_weight * edges + recipe.kl_weight * divergence, error


def _rate_factor(recipe: AutoencoderRecipe, step: int) -> float:
    """Warm-up, then a straight line to zero over the second half."""
    return min(1.0, (step + 1) / recipe.warmup_steps, 2 * (1 - step / recipe.steps))
