"""The image service as a Ray Serve application; the only file here that imports ray.

`import_path: services.image.app:build`, `args:` the fields of `ImageConfig`. Serve calls the
deployment's methods by the names of the RPCs with `(request, grpc_context=...)`: the servicer's own
bound methods are those.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.image.config import ImageConfig
from services.image.loading import load
from services.image.metrics import ImageMetrics
from services.image.ranking import PeerRanker
from services.image.service import ImageService
from services.image.servicer import ImageServicer
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.peer import Peer
from services.runtime.pictures import ignore_pillow_warnings
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.ImageService"

_LOG = logging.getLogger("orrery.image")


class Image:
    """The deployment: one model in one replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: loading must not block the loop
        self, config: ImageConfig
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        ignore_pillow_warnings()
        registry = ServeRegistry({"service": "image", "model": config.model_name})
        self._registry = registry
        metrics = ImageMetrics(registry)
        loaded = self._loaded = await load(config, settings.model_folder, metrics)
        ranker = None
        self._peer = None
        if config.ranking_application is not None:
            self._peer = Peer(config.grpc_target)
            ranker = PeerRanker(self._peer, config.ranking_application)
        service = ImageService(config, loaded.model, loaded.engine, ranker, metrics)
        policy = policy_of("image", (SERVICE,), settings, registry)
        servicer = self._servicer = ImageServicer(config, service, policy)
        health = HealthServicer((SERVICE,), policy.lifecycle, lambda: service.failure)
        self.Generate = servicer.Generate
        self.Edit = servicer.Edit
        self.GetImageModel = servicer.GetImageModel
        self.GetLoad = servicer.GetLoad
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.model_name, "dtype": loaded.model.dtype})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: ImageServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: ImageServicer) -> None:
        await servicer.close()
        await self._loaded.engine.close()
        if self._peer is not None:
            await self._peer.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `ImageConfig`. Raises `ValueError`."""
    config = config_from_args(ImageConfig, args, "image")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    # Three failed checks get a replica replaced: asked every 3 s, a dead engine is gone in 10 s.
    deployment = serve.deployment(
        name="Image",
        health_check_period_s=3.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(Image)
    return deployment.bind(config)
