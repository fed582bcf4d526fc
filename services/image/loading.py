"""From the settings to a model in memory and the engine that runs it. Knows nothing of serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.engine.devices import use_threads
from services.image.config import ImageConfig
from services.image.loop.async_engine import AsyncImageEngine
from services.image.loop.limits import EngineLimits
from services.image.loop.stats import EngineObserver
from services.image.model.diffusion_model import DiffusionModel, LoraOptions, ModelOptions
from services.image.served_model import ServedModel

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded. Whoever asked for it closes the engine."""

    model: ServedModel
    engine: AsyncImageEngine


async def load(
    config: ImageConfig, find_folder: Callable[[str], str], observer: EngineObserver
) -> Loaded:
    """Loads beside the event loop. `find_folder` makes folders of the paths in the settings.

    Raises `ModelFolderError`, and `ValueError` for default sizes that the model cannot make.
    """
    loras = tuple(
        LoraOptions(lora.name, Path(find_folder(lora.path)), lora.scale) for lora in config.loras
    )
    options = ModelOptions(config.device, config.dtype, loras, config.tile_size)

    def load_model() -> DiffusionModel:
        use_threads(config.num_threads)
        return DiffusionModel.load(find_folder(config.model_path), options)

    model = await asyncio.to_thread(load_model)
    served = _served(model, config)
    batching = config.batching
    limits = EngineLimits(
        max_running=batching.max_running,
        max_waiting=batching.max_waiting,
        max_pixels_per_call=batching.max_latent_pixels_per_step,
        stuck_after_s=config.stuck_after_s,
    )
    return Loaded(served, AsyncImageEngine(model, limits, observer))


def _served(model: DiffusionModel, config: ImageConfig) -> ServedModel:
    own_width, own_height = model.default_size
    defaults, limits = config.defaults, config.limits
    width, height = defaults.width or own_width, defaults.height or own_height
    for name, value, most in (
        ("width", width, limits.max_width),
        ("height", height, limits.max_height),
    ):
        if value > most or value % model.size_multiple:
            raise ValueError(
                f"defaults.{name}: expected a multiple of {model.size_multiple} up to "
                f"limits.max_{name} ({most}), got {value}"
            )
    if width * height > limits.max_pixels:
        raise ValueError(f"defaults: {width} x {height} pixels are above limits.max_pixels")
    return ServedModel(
        prediction_type=model.prediction_type,
        dtype=model.dtype,
        weight_hash=model.weight_hash,
        max_prompt_tokens=model.max_prompt_tokens,
        size_multiple=model.size_multiple,
        default_width=width,
        default_height=height,
        default_karras_sigmas=_karras_sigmas(model, config),
        count_tokens=model.count_tokens,
    )


def _karras_sigmas(model: DiffusionModel, config: ImageConfig) -> bool:
    """What the settings leave open, the folder says."""
    if config.defaults.karras_sigmas is not None:
        return config.defaults.karras_sigmas
    return bool(model.schedule.options.use_karras_sigmas)
