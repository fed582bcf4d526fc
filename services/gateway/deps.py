"""What route functions are given: the gateway's parts, and who calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.gateway import headers
from services.gateway.catalog import Catalog
from services.gateway.config import GatewayConfig
from services.gateway.upstream import Caller, Upstream

__all__ = ["CallerDep", "Gateway", "GatewayDep"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that live as long as the app."""

    config: GatewayConfig
    upstream: Upstream
    catalog: Catalog


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _caller(request: Request) -> Caller:
    state, config = request.state, _gateway(request).config
    return headers.caller(request.headers, state.request_id, state.arrived_s, config)


GatewayDep = Annotated[Gateway, Depends(_gateway)]
CallerDep = Annotated[Caller, Depends(_caller)]
