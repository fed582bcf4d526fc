"""`/health` (this process lives), `/ready` (every service serves), `/version`: open to all."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from importlib.metadata import version

from fastapi import APIRouter, Response

from orrery.v1 import generation_pb2 as pb
from services.gateway.deps import CallerDep, GatewayDep
from services.gateway.schemas.status import Health, Readiness, Version
from services.runtime.errors import DeadlineExceeded

__all__ = ["router"]

router = APIRouter(tags=["status"])


@router.get("/health")
async def health() -> Health:
    """Whether the gateway itself is alive. Asks nobody."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness, "description": "A service is not."}})
async def ready(response: Response, gateway: GatewayDep, caller: CallerDep) -> Readiness:
    """Whether every service behind the gateway serves, each by name; as of the last second."""
    try:
        async with asyncio.timeout(caller.left_s()):
            found = await gateway.readiness()
    except TimeoutError:
        raise DeadlineExceeded("the services had not answered when the deadline passed") from None
    if found.status != "ready":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return found


@router.get("/version")
async def show_version() -> Version:
    """Which release this is."""
    return Version(version=version("orrery"), contract=pb.DESCRIPTOR.package)
