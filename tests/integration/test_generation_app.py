"""The Serve deployment of the generation service as a class, without a cluster.

What only a cluster can show is in tests/contract, against the running platform.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import warnings
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from orrery.v1 import generation_pb2
from services.generation.backend import Backend, Experts
from services.generation.config import GenerationConfig
from services.runtime.metrics import MetricsRegistry
from tests.fakes.toy_backend import ToyBackend

ARGS = {"model_name": "toy", "model_path": "unused"}


@pytest.fixture(scope="module")
def app() -> ModuleType:
    """`services.generation.app`. Ray's own modules warn when they are first imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("services.generation.app")


@pytest.fixture
async def replica(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Any, ToyBackend]]:
    """As Serve makes one: the constructor is awaited, and so is the destructor."""

    def never_told_to_stop(*_: object) -> asyncio.Task[Any]:
        return asyncio.create_task(asyncio.Event().wait())

    monkeypatch.setattr(app, "leave_in_time", never_told_to_stop)
    backend = ToyBackend()

    async def load(
        _: GenerationConfig, _folder: str, _registry: MetricsRegistry, _experts: Experts | None
    ) -> Backend:
        return backend

    deployment = app.Generation.__new__(app.Generation)
    await deployment.__init__(GenerationConfig(**ARGS), load)
    yield deployment, backend
    await deployment.__del__()


def test_build_gives_a_deployment_named_generation(app: ModuleType) -> None:
    assert app.build(ARGS)._bound_deployment.name == "Generation"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"model_name": "m"}, "model_path"),
        ({**ARGS, "engine": {"block_sise": 16}}, "engine.block_sise"),
        ({**ARGS, "limits": {"max_batch_prompts": 0}}, "limits.max_batch_prompts"),
    ],
)
def test_build_names_the_key_that_is_wrong(
    app: ModuleType, args: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        app.build(args)


async def test_every_rpc_is_a_method_that_takes_serves_context(
    replica: tuple[Any, ToyBackend],
) -> None:
    deployment, _ = replica
    service = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"]
    for name in [*(method.name for method in service.methods), "Check", "List", "Watch"]:
        method = getattr(deployment, name)
        assert list(inspect.signature(method).parameters) == ["request", "grpc_context"]


async def test_health_check_fails_once_the_engine_is_dead(
    replica: tuple[Any, ToyBackend],
) -> None:
    deployment, backend = replica
    await deployment.check_health()
    await backend.close()
    with pytest.raises(RuntimeError, match="engine"):
        await deployment.check_health()
