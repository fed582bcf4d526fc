"""From a request to a picture ready for its steps: prompts encoded, source noised.

Off the hot path, one picture at a time, so that none depends on what is prepared beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from services.image.loop.beginning import PictureEncoder, begin
from services.image.loop.denoising import Denoiser
from services.image.loop.guidance import needs_unconditional
from services.image.loop.prepared import KeptArea, Prepared
from services.image.schedulers import NoiseSchedule, StepPlan
from services.image.types import PictureRequest, Pixels

__all__ = ["PictureModel", "prepare"]


class PictureModel(Denoiser, PictureEncoder, Protocol):
    """A latent-diffusion model as the engine knows it. Its methods run in several threads at once:
    `predict` in one, `encode_prompts` and `encode_picture` in another, `decode` in a third."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def device(self) -> torch.device: ...

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        """`[n, L, D]`; a text's rows do not depend on the others."""
        ...

    def decode(self, latents: torch.Tensor) -> Pixels:
        """`[C, h, w]` to a picture."""
        ...


def prepare(model: PictureModel, request: PictureRequest, plan: StepPlan) -> Prepared:
    """Everything before the first step. Its noise comes from the request's seed alone."""
    sampling, device = request.sampling, model.device
    generator = torch.Generator().manual_seed(request.seed)
    is_guided = needs_unconditional(sampling.guidance_scale)
    texts = [request.prompt, request.negative_prompt] if is_guided else [request.prompt]
    contexts = model.encode_prompts(texts)
    beginning = begin(model, request, plan, generator)
    kept = beginning.kept
    return Prepared(
        latents=beginning.latents.to(device),
        table=plan.table.to(device),
        context=contexts[0],
        negative_context=contexts[1] if is_guided else None,
        guidance_scale=sampling.guidance_scale,
        guidance_rescale=sampling.guidance_rescale,
        generator=generator,
        is_stochastic=plan.draws_noise,
        preview_every=request.preview_every,
        kept=None
        if kept is None
        else KeptArea(kept.mask, kept.source, kept.noise, plan.keep.to(device)),
        model_channels=beginning.model_channels,
    )
