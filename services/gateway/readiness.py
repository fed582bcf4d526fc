"""Asks every service behind the gateway whether it serves. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import time

from services.gateway.config import GatewayConfig
from services.gateway.headers import new_request_id
from services.gateway.schemas.status import Readiness, ServiceReadiness
from services.gateway.upstream import Caller, Upstream
from services.runtime.errors import DeadlineExceeded, OrreryError, kind_of
from services.runtime.peer import check_ready

__all__ = ["look_at_services"]


async def look_at_services(config: GatewayConfig, upstream: Upstream) -> Readiness:
    """Each service by name. All are asked at once, on nobody's behalf."""
    names = config.all_applications
    deadline_s = time.monotonic() + config.ready_timeout_s
    caller = Caller(new_request_id(), api_key=None, deadline_s=deadline_s)
    found = await asyncio.gather(*(_ask(config, upstream, name, caller) for name in names))
    return Readiness(
        status="ready" if all(each.status == "ready" for each in found) else "not_ready",
        services=dict(zip(names, found, strict=True)),
    )


async def _ask(
    config: GatewayConfig, upstream: Upstream, application: str, caller: Caller
) -> ServiceReadiness:
    try:
        await check_ready(upstream, application, caller)
    except DeadlineExceeded:
        reason = f"no answer within {config.ready_timeout_s:g} s"
        return ServiceReadiness(status="not_ready", reason=reason)
    except OrreryError as error:
        reason = f"{kind_of(error).reason}: {error.message}"
        return ServiceReadiness(status="not_ready", reason=reason)
    return ServiceReadiness(status="ready")
