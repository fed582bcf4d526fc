"""What the calls of a deployment go through, by the settings: keys, metrics, traces."""

from __future__ import annotations

from collections.abc import Callable

from services.runtime.config import Settings
from services.runtime.errors import OrreryError
from services.runtime.metrics import MetricsRegistry
from services.runtime.rpc import RpcPolicy, no_translation
from services.runtime.rpc_metrics import RpcMetrics

__all__ = ["policy_of"]


def policy_of(
    service: str,
    settings: Settings,
    registry: MetricsRegistry,
    translate: Callable[[Exception], OrreryError | None] = no_translation,
) -> RpcPolicy:
    """`service` is its name in traces; `translate` as of `RpcPolicy`. Raises `SettingsError`."""
    return RpcPolicy(
        authenticator=settings.authenticator(),
        translate=translate,
        observe=RpcMetrics(registry).observe,
        tracer=settings.tracer(service),
    )
