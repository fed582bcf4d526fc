"""What the calls of a deployment go through, by the settings: keys, metrics, traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.runtime.config import Settings
from services.runtime.errors import OrreryError
from services.runtime.metrics import MetricsRegistry
from services.runtime.rpc import RpcPolicy, no_translation
from services.runtime.rpc_metrics import RpcMetrics

__all__ = ["policy_of"]


def policy_of(
    name: str,
    services: Sequence[str],
    settings: Settings,
    registry: MetricsRegistry,
    translate: Callable[[Exception], OrreryError | None] = no_translation,
) -> RpcPolicy:
    """`name` is that in traces, `services` have the full names of the contract; `translate` as of
    `RpcPolicy`. Raises `SettingsError`.
    """
    return RpcPolicy(
        authenticator=settings.authenticator(),
        translate=translate,
        observe=RpcMetrics(registry, services).observe,
        tracer=settings.tracer(name),
    )
