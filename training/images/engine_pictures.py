"""Pictures by Orrery's own image engine, without the server around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from itertools import count
from pathlib import Path

import numpy as np

from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.model.diffusion_model import DiffusionModel, ModelOptions
from services.image.types import Finished, PictureRequest, Sampling, SchedulerName
from training.images.drawing import Pixels
from training.images.eval_diffusion import AT_ONCE, GUIDANCE, STEPS, Generate


def engine_generate(folder: Path, sampling: Sampling | None = None) -> Generate:
    """Pictures of the diffusers folder as it is served here; picture number i has seed i.

    Default: as the card has it.
    """
    model = DiffusionModel.load(folder, ModelOptions(dtype="auto"))
    chosen = sampling or Sampling(STEPS, SchedulerName.DPM_SOLVER_PP_2M, GUIDANCE)
    seeds = count()

    def generate(texts: Sequence[str]) -> Pixels:
        width, height = model.default_size
        requests = [PictureRequest(text, "", width, height, next(seeds), chosen) for text in texts]
        return np.stack(asyncio.run(_paint(model, requests)))

    return generate


async def _paint(model: DiffusionModel, requests: Sequence[PictureRequest]) -> list[Pixels]:
    """All at once, as many in a batch as `AT_ONCE`."""
    limits = EngineLimits(max_running=AT_ONCE, max_waiting=max(1, len(requests)))
    engine = AsyncImageEngine(model, limits)
    try:
        return await asyncio.gather(*(_picture(engine, request) for request in requests))
    finally:
        await engine.close()


async def _picture(engine: AsyncImageEngine, request: PictureRequest) -> Pixels:
    async with aclosing(engine.stream(request)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event.pixels
    raise RuntimeError("the engine ended a picture's events without a picture")
