"""A picture as callers get it: prepared, then taken through its steps by the engine."""

from __future__ import annotations

import torch

from services.image.loop.engine import Denoised, ImageEngine
from services.image.loop.preparation import prepare
from services.image.loop.prepared import Prepared
from services.image.model.diffusion_model import DiffusionModel
from services.image.schedulers import make_plan
from services.image.types import PictureRequest

__all__ = ["latents_alone", "prepared"]


def prepared(model: DiffusionModel, request: PictureRequest) -> Prepared:
    strength = None if request.source is None else request.source.strength
    return prepare(model, request, make_plan(model.schedule, request.sampling, strength))


def latents_alone(model: DiffusionModel, request: PictureRequest) -> torch.Tensor:
    """The last latents of a picture that has the engine to itself."""
    engine = ImageEngine(model)
    engine.add(prepared(model, request))
    while True:
        outcome = engine.step()
        assert outcome is not None
        (event,) = outcome.events
        if isinstance(event, Denoised):
            return event.latents
