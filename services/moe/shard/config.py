"""Settings of one expert shard. Frozen and validated; reads no environment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from services.engine.config import DType

__all__ = ["ShardConfig"]


class ShardConfig(BaseModel):
    """One application: a part of one model's experts. Which ones, the router says."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=128)
    model_path: str = Field(min_length=1)  # the folder that router and decoder read, too
    dtype: DType = "auto"  # the same as the router's and the decoder's
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    num_threads: int | None = Field(default=None, ge=1, le=1024)  # None: cores of this process
    max_expert_bytes: int | None = Field(default=None, ge=1)  # None: all experts of the model
    max_waiting_bytes: int = Field(default=256 << 20, ge=1)  # of rows in line; beyond: Overloaded
    default_timeout_s: float = Field(default=60.0, gt=0)  # for calls without a deadline
    stuck_after_s: float = Field(default=60.0, gt=0)  # one call's computing: the shard is replaced
    drain_timeout_s: float = Field(default=5.0, ge=0)
