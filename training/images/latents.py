"""The pictures the diffusion model learns from, encoded once: their scenes and latents.

Scenes come from the seed, so only the latents are kept on disk. Captions are worded anew each time
a picture is seen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from training.images.autoencoder import as_input
from training.images.captions import caption
from training.images.drawing import draw_many
from training.images.scenes import KINDS, Scene, draw_scene

KIND_WEIGHTS = (0.3, 0.45, 0.25)  # single, pair, count: of the set
SHARES = {"single": 0.15, "pair": 0.3, "count": 0.55}  # of a batch: the harder ones more often
FULL_SHARE = 0.3
EMPTY_SHARE = 0.1  # captions left empty, for classifier-free guidance
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class LatentSet:
    """`scenes` and, in the same order, their `latents`, float16 [n, channels, height, width]."""

    scenes: Sequence[Scene]
    latents: torch.Tensor


def training_scenes(num_pictures: int, seed: int) -> list[Scene]:
    """The scenes of the training set, none of them held out."""
    rng = random.Random(f"latents {seed}")
    kinds = rng.choices(KINDS, KIND_WEIGHTS, k=num_pictures)
    return [draw_scene(rng, held_out=False, kind=kind) for kind in kinds]


def load_or_encode(model: AutoencoderKL, path: Path, num_pictures: int, seed: int) -> LatentSet:
    """The training set; `path` keeps its latents from one run to the next."""
    scenes = training_scenes(num_pictures, seed)
    if path.exists():
        latents = torch.from_numpy(np.load(path))
        if len(latents) != num_pictures:
            raise ValueError(f"{path}: expected {num_pictures} latents, found {len(latents)}")
        return LatentSet(scenes, latents)
    latents = encode(model, scenes)
    np.save(path, latents.numpy())
    return LatentSet(scenes, latents)


@torch.no_grad()
def encode(model: AutoencoderKL, scenes: Sequence[Scene]) -> torch.Tensor:
    """The mean latents of the pictures of `scenes`, on the CPU: float16 [n, 4, 16, 16]."""
    model = model.to(memory_format=torch.channels_last)
    parts = []
    for first in range(0, len(scenes), ENCODED_AT_ONCE):
        pictures = draw_many(scenes[first : first + ENCODED_AT_ONCE])
        batch = as_input(pictures).to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            means = model.encode(batch).latent_dist.mean
        parts.append((means.float() * model.config.scaling_factor).half().cpu().contiguous())
    return torch.cat(parts)


def batches(
    data: LatentSet, tokenizer: CLIPTokenizer, batch_size: int, seed: int, first_step: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Latents float32 [b, 4, 16, 16] and token ids int64 [b, tokens], from `first_step` on.

    Pictures come at random, each kind as often as `SHARES` says.
    """
    probabilities = _probabilities([scene.kind for scene in data.scenes])
    for step in count(first_step):
        rng = np.random.default_rng((seed, step))
        chosen = rng.choice(len(data.scenes), batch_size, p=probabilities)
        words = random.Random(f"captions {seed} {step}")
        texts = [_caption(data.scenes[index], words) for index in chosen]
        yield data.latents[torch.from_numpy(chosen)].float(), tokenize(texts, tokenizer)


def _probabilities(kinds: Sequence[str]) -> npt.NDArray[np.float64]:
    numbers = Counter(kinds)
    weights = np.array([SHARES[kind] / numbers[kind] for kind in kinds])
    return weights / weights.sum()


def tokenize(texts: Sequence[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Token ids int64 [len(texts), model_max_length], padded as StableDiffusionPipeline does it."""
    encoded = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True
    )
    return torch.tensor(encoded["input_ids"])


def _caption(scene: Scene, rng: random.Random) -> str:
    if rng.random() < EMPTY_SHARE:
        return ""
    return caption(scene, rng, full=rng.random() < FULL_SHARE)
