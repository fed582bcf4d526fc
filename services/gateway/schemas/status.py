"""`/health`, `/ready` and `/version`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["Health", "Readiness", "ServiceReadiness", "Version"]


class Health(BaseModel):
    status: Literal["alive"] = "alive"


class ServiceReadiness(BaseModel):
    status: Literal["ready", "not_ready"]
    reason: str | None = Field(default=None, description="Why it is not ready.")


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    services: dict[str, ServiceReadiness] = Field(description="By the application's name.")


class Version(BaseModel):
    version: str = Field(description="Of Orrery.")
    contract: str = Field(description="The gRPC package that the services speak.")
