"""The generation service as a Ray Serve application; the only file here that imports ray.

`import_path: services.generation.app:build`, `args:` the fields of `GenerationConfig`. Serve calls
the deployment's methods by the names of the RPCs with `(request, grpc_context=...)`: the servicer's
own bound methods are those, so that a token passes through nothing but the servicer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ray import serve

from services.generation.backend import Backend, Experts
from services.generation.backends import load_backend
from services.generation.config import GenerationConfig
from services.generation.engine_errors import to_taxonomy
from services.generation.experts_watch import ExpertsWatch
from services.generation.remote_experts import RemoteExperts
from services.generation.servicer import GenerationServicer
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.metrics import MetricsRegistry
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.GenerationService"

_LOG = logging.getLogger("orrery.generation")

BackendLoader = Callable[
    [GenerationConfig, str, MetricsRegistry, Experts | None], Awaitable[Backend]
]


class Generation:
    """The deployment: one model in one replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: loading must not block the loop
        self, config: GenerationConfig, load: BackendLoader
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        registry = ServeRegistry({"service": "generation", "model": config.model_name})
        self._registry = registry
        experts = None
        if config.moe is not None:
            api_key = next(iter(settings.all_api_keys()), None)
            experts = RemoteExperts(config.moe, api_key)
        folder = settings.model_folder(config.model_path)
        backend = await load(config, folder, registry, experts)
        policy = policy_of("generation", (SERVICE,), settings, registry, to_taxonomy)
        servicer = self._servicer = GenerationServicer(config, backend, policy)
        watch = self._watch = None if config.moe is None else ExpertsWatch(config.moe)
        health = HealthServicer(
            (SERVICE,),
            policy.lifecycle,
            lambda: backend.failure,
            lambda: None if watch is None else watch.hindrance,
        )
        self.Generate = servicer.Generate
        self.GenerateBatch = servicer.GenerateBatch
        self.Score = servicer.Score
        self.Tokenize = servicer.Tokenize
        self.Detokenize = servicer.Detokenize
        self.GetModel = servicer.GetModel
        self.GetLoad = servicer.GetLoad
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.model_name, "backend": config.backend})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: GenerationServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: GenerationServicer) -> None:
        await servicer.close()
        if self._watch is not None:
            await self._watch.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `GenerationConfig`. Raises `ValueError`."""
    return bind(args, load_backend)


def bind(args: dict[str, Any], load: BackendLoader) -> serve.Application:
    """The application over any backend."""
    config = config_from_args(GenerationConfig, args, "generation")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    # Three failed checks get a replica replaced: asked every 3 s, a dead engine is gone in 10 s.
    deployment = serve.deployment(
        name="Generation",
        health_check_period_s=3.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(Generation)
    return deployment.bind(config, load)
