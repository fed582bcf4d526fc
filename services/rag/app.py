"""The RAG service as a Ray Serve application; the only file here that imports ray.

`import_path: services.rag.app:build`, `args:` the fields of `RagConfig`. Serve calls the
deployment's methods by the names of the RPCs: the servicer's own bound methods.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.rag.config import RagConfig
from services.rag.conversations import Conversations
from services.rag.metrics import RagMetrics
from services.rag.peers import PeerServices
from services.rag.pipeline import Pipeline
from services.rag.servicer import RagServicer
from services.runtime import store
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.peer import Peer
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.RagService"

_LOG = logging.getLogger("orrery.rag")


class Rag:
    """The deployment: the pipeline in one replica. It keeps nothing that another could miss."""

    async def __init__(self, config: RagConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        registry = ServeRegistry({"service": "rag", "model": config.default_model})
        self._registry = registry
        url = settings.redis_url
        redis = None if url is None else store.connect(url.get_secret_value())
        metrics = RagMetrics(registry)
        conversations = Conversations(redis, config.conversations, metrics.redis_available)
        conversations.watch(metrics.redis_memory)
        self._peer = Peer(config.grpc_target)
        services = PeerServices(self._peer, retrieval=config.retrieval_application)
        pipeline = Pipeline(config, services, conversations, metrics)
        policy = policy_of("rag", (SERVICE,), settings, registry)
        servicer = self._servicer = RagServicer(config, pipeline, conversations, policy)
        # Other services and Redis may come and go: each question finds out.
        health = HealthServicer((SERVICE,), policy.lifecycle)
        self.Ask = servicer.Ask
        self.AskBatch = servicer.AskBatch
        self.GetConversation = servicer.GetConversation
        self.DeleteConversation = servicer.DeleteConversation
        self.GetLoad = servicer.GetLoad
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.default_model})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: RagServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: RagServicer) -> None:
        await servicer.close()
        await self._peer.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `RagConfig`. Raises `ValueError`."""
    config = config_from_args(RagConfig, args, "rag")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    return serve.deployment(
        name="Rag",
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(Rag).bind(config)
