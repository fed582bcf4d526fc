"""Fifty random mixes on a real (tiny) Stable Diffusion: every picture as if it were alone.

Bit for bit, in float32 on a CPU: `services.image.model.invariance` has the UNet's kernels round
alike whatever the size of the batch.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from services.image.loop.engine import Denoised, Failed, ImageEngine
from services.image.loop.limits import EngineLimits
from services.image.model.diffusion_model import DiffusionModel
from services.image.types import PictureRequest, Sampling, SchedulerName, Source
from tests.fakes.random_diffusion import random_diffusion_folder
from tests.unit.image.by_engine import latents_alone, prepared

NUM_REQUESTS = 16
NUM_MIXES = 50


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return DiffusionModel.load(random_diffusion_folder(tmp_path_factory.mktemp("model")))


def random_request(seed: int) -> PictureRequest:
    """Schedulers, guidance, steps, sizes, sources, strengths and masks, all at random."""
    rng = random.Random(seed)
    scheduler = rng.choice(list(SchedulerName))
    is_ddim = scheduler is SchedulerName.DDIM
    width, height = rng.choice([(32, 32), (32, 32), (32, 32), (32, 24), (16, 16)])
    source = None
    if rng.random() < 0.5:
        noise = np.random.default_rng(seed)
        pixels = noise.integers(0, 256, (height, width, 3), np.uint8)
        mask = noise.choice(np.array([0, 255], np.uint8), (height, width))
        strength = rng.choice([0.4, 0.75, 1.0])
        source = Source(pixels, strength, mask if rng.random() < 0.5 else None)
    return PictureRequest(
        prompt=f"picture {seed}",
        negative_prompt=rng.choice(["", "blurred"]),
        width=width,
        height=height,
        seed=seed,
        sampling=Sampling(
            num_steps=rng.randint(2, 6),
            scheduler=scheduler,
            guidance_scale=rng.choice([1.0, 1.0, 3.0, 7.5]),
            guidance_rescale=rng.choice([0.0, 0.7]),
            eta=rng.choice([0.0, 1.0]) if is_ddim else 0.0,
            karras_sigmas=not is_ddim and rng.random() < 0.5,
        ),
        source=source,
    )


@pytest.fixture(scope="module")
def alone(model: DiffusionModel) -> list[torch.Tensor]:
    """The final latents of every request that had the engine to itself."""
    return [latents_alone(model, random_request(seed)) for seed in range(NUM_REQUESTS)]


@pytest.mark.parametrize("mix", range(NUM_MIXES))
def test_a_picture_is_the_same_in_any_mix(
    model: DiffusionModel, alone: list[torch.Tensor], mix: int
) -> None:
    rng = random.Random(mix)
    max_pixels = rng.choice([3 * 64, 10**6])  # some mixes have to take turns
    engine = ImageEngine(model, EngineLimits(max_running=6, max_pixels_per_call=max_pixels))
    waiting = rng.sample(range(NUM_REQUESTS), 7)
    running: dict[int, int] = {}
    num_compared = 0
    while waiting or engine.num_running:
        while waiting and engine.num_free and rng.random() < 0.6:
            seed = waiting.pop()
            running[engine.add(prepared(model, random_request(seed)))] = seed
        if len(running) > 1 and rng.random() < 0.1:
            gone = rng.choice(list(running))
            engine.cancel(gone)
            del running[gone]
        outcome = engine.step()
        engine.check_integrity()
        for event in outcome.events if outcome else []:
            assert not isinstance(event, Failed)
            if isinstance(event, Denoised):
                expected = alone[running.pop(event.slot_id)]
                assert torch.equal(event.latents, expected)
                num_compared += 1
    assert num_compared
