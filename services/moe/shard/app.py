"""An expert shard as a Ray Serve application; the only file of the shard that imports ray.

`import_path: services.moe.shard.app:build`, `args:` the fields of `ShardConfig`. One replica: what
it holds is its own, and the router counts on it. More shards are more applications.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.moe.shard.config import ShardConfig
from services.moe.shard.loading import load_shard
from services.moe.shard.metrics import ShardMetrics
from services.moe.shard.servicer import ShardServicer
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.rpc import RpcPolicy
from services.runtime.rpc_metrics import RpcMetrics
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.ExpertShardService"

_LOG = logging.getLogger("orrery.moe.shard")


class ExpertShard:
    """The deployment."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: reading must not block the loop
        self, config: ShardConfig
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        registry = ServeRegistry({"service": "moe_shard", "model": config.model_name})
        self._registry = registry
        folder = settings.model_folder(config.model_path)
        model, service = await load_shard(config, folder, ShardMetrics(registry))
        policy = RpcPolicy(
            authenticator=settings.authenticator(),
            observe=RpcMetrics(registry, (SERVICE,)).observe,
        )
        servicer = self._servicer = ShardServicer(config, model, service, policy)
        health = HealthServicer((SERVICE,), policy.lifecycle, lambda: service.failure)
        self.Compute = servicer.Compute
        self.LoadExperts = servicer.LoadExperts
        self.DropExperts = servicer.DropExperts
        self.GetShard = servicer.GetShard
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.model_name})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: ShardServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: ShardServicer) -> None:
        await servicer.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `ShardConfig`. Raises `ValueError`."""
    config = config_from_args(ShardConfig, args, "expert shard")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    # Asked often: a shard that is gone keeps decoders waiting.
    deployment = serve.deployment(
        name="ExpertShard",
        health_check_period_s=1.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(ExpertShard)
    return deployment.bind(config)
