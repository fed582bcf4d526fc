"""`/health` (this process lives), `/ready` (every service serves), `/version`: open to all."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from importlib.metadata import version

from fastapi import APIRouter, Response

from orrery.v1 import generation_pb2 as pb
from services.gateway.deps import CallerDep, Gateway, GatewayDep
from services.gateway.schemas.status import Health, Readiness, ServiceReadiness, Version
from services.gateway.upstream import Caller
from services.runtime.errors import DeadlineExceeded, OrreryError, kind_of
from services.runtime.peer import check_ready

__all__ = ["router"]

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> Health:
    """Whether the gateway itself is alive. Asks nobody."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "A service is not."}})
async def ready(response: Response, gateway: GatewayDep, caller: CallerDep) -> Readiness:
    """Whether every service behind the gateway serves, each by name."""
    names = gateway.config.all_applications
    found = await asyncio.gather(*(_ask(gateway, name, caller) for name in names))
    all_ready = all(service.status == "ready" for service in found)
    if not all_ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(
        status="ready" if all_ready else "not_ready", services=dict(zip(names, found, strict=True))
    )


@router.get("/version")
async def show_version() -> Version:
    """Which release this is."""
    return Version(version=version("orrery"), contract=pb.DESCRIPTOR.package)


async def _ask(gateway: Gateway, application: str, caller: Caller) -> ServiceReadiness:
    limit_s = gateway.config.ready_timeout_s
    try:
        await check_ready(gateway.upstream, application, caller.within_s(limit_s))
    except DeadlineExceeded:
        return ServiceReadiness(status="not_ready", reason=f"no answer within {limit_s:g} s")
    except OrreryError as error:
        reason = f"{kind_of(error).reason}: {error.message}"
        return ServiceReadiness(status="not_ready", reason=reason)
    return ServiceReadiness(status="ready")
