"""The router as a Ray Serve application; the only file of the router that imports ray.

`import_path: services.moe.router.app:build`, `args:` the fields of `RouterConfig`. One replica: the
placement is its own. One that is started anew finds out from the shards what they hold.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.moe.router.config import RouterConfig
from services.moe.router.loading import load_model, start_router
from services.moe.router.metrics import RouterMetrics
from services.moe.router.peers import PeerShard
from services.moe.router.servicer import RouterServicer
from services.runtime.config import Settings, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.peer import Peer
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICE = "orrery.v1.MoeRouterService"

_LOG = logging.getLogger("orrery.moe.router")


class MoeRouter:
    """The deployment."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: loading must not block the loop
        self, config: RouterConfig
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        registry = ServeRegistry({"service": "moe", "model": config.model_name})
        self._registry = registry
        model, gates = await load_model(config, settings.model_folder(config.model_path))
        # The router repeats calls itself, on other shards; its calls are its own, not a client's.
        peer = self._peer = Peer(config.grpc_target, num_channels=4, max_retries=0)
        api_key = next(iter(settings.all_api_keys()), None)
        clients = self._clients = {
            name: PeerShard(peer, name, model, api_key) for name in config.shards
        }
        metrics = RouterMetrics(registry)
        service = await start_router(config, model, gates, clients, metrics)
        policy = policy_of("moe-router", (SERVICE,), settings, registry)
        servicer = self._servicer = RouterServicer(config, service, policy)
        health = HealthServicer(
            (SERVICE,), policy.lifecycle, lambda: service.failure, lambda: service.hindrance
        )
        self.Route = servicer.Route
        self.Dispatch = servicer.Dispatch
        self.DispatchStream = servicer.DispatchStream
        self.GetPlacement = servicer.GetPlacement
        self.GetExpertLoad = servicer.GetExpertLoad
        self.Rebalance = servicer.Rebalance
        self.Analyze = servicer.Analyze
        self.GetMoeModel = servicer.GetMoeModel
        self.GetLoad = servicer.GetLoad
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"model": config.model_name, "num_shards": len(clients)})

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: RouterServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: RouterServicer) -> None:
        await servicer.close()
        for client in self._clients.values():
            await client.close()
        await self._peer.close()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `RouterConfig`. Raises `ValueError`."""
    config = config_from_args(RouterConfig, args, "moe router")
    # A plain call, not a decorator: the class stays importable and is pickled by its name.
    deployment = serve.deployment(
        name="MoeRouter",
        health_check_period_s=3.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(MoeRouter)
    return deployment.bind(config)
