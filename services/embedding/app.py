"""The embedding service as a Ray Serve application; the only file here that imports ray.

`import_path: services.embedding.app:build`, `args:` the fields of `EmbeddingConfig`. Serve calls
the deployment's methods by the names of the RPCs with `(request, grpc_context=...)`: the servicer's
own bound methods are those.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.embedding.config import EmbeddingConfig
from services.embedding.loading import load_models
from services.embedding.service import EmbeddingService
from services.embedding.servicer import EmbeddingServicer
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.pictures import ignore_pillow_warnings
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.EmbeddingService"

_LOG = logging.getLogger("orrery.embedding")


class Embedding:
    """The deployment: one model in one replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: loading must not block the loop
        self, config: EmbeddingConfig
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        ignore_pillow_warnings()
        registry = ServeRegistry({"service": "embedding", "model": config.model_name})
        self._registry = registry
        reranker = config.reranker
        models = await load_models(
            config,
            settings.model_folder(config.model_path),
            None if reranker is None else settings.model_folder(reranker.path),
        )
        redis_url = settings.redis_url
        self._models = models
        service = EmbeddingService(
            config, models, registry, None if redis_url is None else redis_url.get_secret_value()
        )
        policy = policy_of("embedding", (SERVICE,), settings, registry)
        servicer = self._servicer = EmbeddingServicer(config, service, policy)
        health = HealthServicer((SERVICE,), policy.lifecycle, lambda: service.failure)
        self.EmbedText = servicer.EmbedText
        self.Rerank = servicer.Rerank
        self.EmbedImage = servicer.EmbedImage
        self.Classify = servicer.Classify
        self.Similarity = servicer.Similarity
        self.GetEmbeddingModel = servicer.GetEmbeddingModel
        self.GetLoad = servicer.GetLoad
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.model_name, "dtype": models.encoder.dtype})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: EmbeddingServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: EmbeddingServicer) -> None:
        await servicer.close()
        self._models.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `EmbeddingConfig`. Raises `ValueError`."""
    config = config_from_args(EmbeddingConfig, args, "embedding")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    deployment = serve.deployment(
        name="Embedding",
        health_check_period_s=3.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(Embedding)
    return deployment.bind(config)
