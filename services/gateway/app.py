"""The gateway as a Ray Serve application; the only file here that imports ray.

`import_path: services.gateway.app:build`, `args:` the fields of `GatewayConfig`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve

from services.gateway.api import create_api
from services.gateway.config import GatewayConfig
from services.gateway.metrics import HttpMetrics
from services.runtime.config import Settings, config_from_args
from services.runtime.logging import configure_logging
from services.runtime.peer import Peer
from services.runtime.pictures import ignore_pillow_warnings
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, when_stopping

__all__ = ["build"]


class Gateway:
    """The deployment: one HTTP server in one replica."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._settings = Settings.from_env()
        configure_logging(self._settings.log_level, self._settings.log_format)
        ignore_pillow_warnings()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this in the replica, and runs the lifespan of what it gets."""
        upstream = Peer(
            self._config.grpc_target,
            num_channels=self._config.num_channels,
            max_retries=self._config.max_retries,
        )
        self._leaving = when_stopping(partial(self._leave, upstream))
        registry = self._registry = ServeRegistry({"service": "gateway"})
        metrics = HttpMetrics(registry)
        return create_api(
            self._config,
            upstream,
            self._settings.authenticator(),
            observe=metrics.observe,
            observe_usage=metrics.usage,
            tracer=self._settings.tracer("gateway"),
            sends_request_id=False,  # Serve gives every request an id and sends it back
        )

    async def __del__(self) -> None:
        """Serve awaits it once the replica has drained and the application's lifespan has ended."""
        registry: ServeRegistry | None = self.__dict__.pop("_registry", None)
        if registry is not None:
            await registry.close()

    async def _leave(self, upstream: Peer) -> None:
        """Ends in time what still runs, by ending the calls that it waits for."""
        await asyncio.sleep(self._config.drain_timeout_s)
        await upstream.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `GatewayConfig`. Raises `ValueError`."""
    config = config_from_args(GatewayConfig, args, "gateway")
    return serve.deployment(
        name="Gateway",
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(serve.ingress()(Gateway)).bind(config)
