"""The generation application over the toy backend, for trying Serve itself without a model."""

from __future__ import annotations

from typing import Any

from ray import serve

from services.generation.app import bind
from services.generation.backend import Backend, Experts
from services.generation.config import GenerationConfig
from services.runtime.metrics import MetricsRegistry
from tests.fakes.toy_backend import ToyBackend, ToySettings


async def _load_toy(
    _: GenerationConfig, _folder: str, _registry: MetricsRegistry, _experts: Experts | None
) -> Backend:
    backend = ToyBackend(ToySettings(step_s=0.01))
    backend.dies_on = "DIE"
    return backend


def build(args: dict[str, Any]) -> serve.Application:
    """An application like the real one, whose backend is arithmetic."""
    return bind(args, _load_toy)
