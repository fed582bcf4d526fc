"""Chooses and loads the backend that the config names."""

from __future__ import annotations

from services.engine.errors import ConfigError
from services.generation.backend import Backend, Experts
from services.generation.config import GenerationConfig
from services.runtime.metrics import MetricsRegistry

__all__ = ["load_backend"]


async def load_backend(
    config: GenerationConfig,
    model_folder: str,
    registry: MetricsRegistry,
    experts: Experts | None = None,
) -> Backend:
    """Loads the model off the event loop. `experts`: what computes them where not this process.

    Raises `CheckpointError` or `ConfigError` of the engine, naming what is wrong; `ConfigError`
    too when the backend is not installed.
    """
    # One of the two is installed at a time: vLLM has an environment of its own.
    if config.backend == "vllm":
        try:
            from services.generation.vllm_backend import VLLMBackend
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ConfigError("backend", "vllm is not installed in this environment") from error
        return await VLLMBackend.start(config, model_folder, registry)
    from services.generation.native import NativeBackend

    return await NativeBackend.start(config, model_folder, registry, experts)
