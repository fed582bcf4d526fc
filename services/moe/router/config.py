"""Settings of one router: which model, which shards, how it batches, what it does about failures.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.engine.config import DType

__all__ = [
    "BatchingConfig",
    "CapacityConfig",
    "FailureConfig",
    "RouterConfig",
    "RouterLimitsConfig",
    "TextConfig",
]


class BatchingConfig(BaseModel):
    """How tokens of concurrent decoders share the calls to the shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # How long a layer's tokens wait for those of other decoders; not at all where one talks alone.
    window_s: float = Field(default=0.0003, ge=0, le=0.1)
    talking_s: float = Field(default=0.05, gt=0)  # since its last tokens; others wait for it
    max_tokens: int = Field(default=4096, ge=1)  # of a batch; one call alone is always let through


class CapacityConfig(BaseModel):
    """How many rows an expert takes of a batch: Lepikhin et al. 2020 (GShard), section 2.2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Over the even share, tokens * k / experts. None: all of them (dropless).
    factor: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    policy: Literal["drop", "reroute"] = "drop"

    @model_validator(mode="after")
    def _policy_needs_a_factor(self) -> CapacityConfig:
        if self.factor is None and "policy" in self.model_fields_set:
            raise ValueError("policy: has no effect without a factor")
        return self


class FailureConfig(BaseModel):
    """What is done about shards that are slow, silent or gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt_timeout_s: float = Field(default=10.0, gt=0)  # of one call; longer is a failure
    # A call that takes this many times its shard's usual time is repeated on another replica.
    hedge_factor: float = Field(default=5.0, gt=1)
    hedge_floor_s: float = Field(default=0.02, ge=0)  # but not before
    # How long after a shard was lost calls still wait for it to be replaced.
    replacement_timeout_s: float = Field(default=30.0, gt=0)
    start_timeout_s: float = Field(default=60.0, gt=0)  # how long shards are waited for at start
    probe_interval_s: float = Field(default=2.0, gt=0)  # of shards that answer
    probe_lost_interval_s: float = Field(default=0.5, gt=0)  # of those that do not
    probe_timeout_s: float = Field(default=2.0, gt=0)  # three missed in a row, and it is lost
    load_timeout_s: float = Field(default=120.0, gt=0)  # of LoadExperts and DropExperts


class RouterLimitsConfig(BaseModel):
    """Limits on what one call may ask for, checked before it costs anything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int | None = Field(default=None, ge=1)  # of a call; None: what a message holds
    max_text_bytes: int = Field(default=16 << 10, ge=1)  # UTF-8, before it is tokenized
    # Of all calls that have no output yet; beyond it: Overloaded.
    max_waiting_tokens: int = Field(default=1 << 16, ge=1)
    default_timeout_s: float = Field(default=60.0, gt=0)  # for calls without a deadline

    @model_validator(mode="after")
    def _a_call_can_be_taken(self) -> RouterLimitsConfig:
        if self.max_tokens is not None and self.max_tokens > self.max_waiting_tokens:
            raise ValueError(
                f"max_tokens: expected at most max_waiting_tokens, {self.max_waiting_tokens}"
            )
        return self


class TextConfig(BaseModel):
    """How texts are read: by the dense part of the decoder, in the router's process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kv_cache_bytes: int = Field(default=64 << 20, ge=1 << 10)
    max_tokens: int | None = Field(default=None, ge=2)  # None: the model's context
    max_waiting: int = Field(default=16, ge=0)  # texts in line; beyond it: Overloaded


class RouterConfig(BaseModel):
    """One application: the sparse layers of one model, and the shards that compute them."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=128)
    model_path: str = Field(min_length=1)  # the folder that shards and decoder read, too
    aliases: tuple[str, ...] = ()  # other names the model answers to
    shards: tuple[str, ...] = Field(min_length=1)  # their applications
    grpc_target: str = "127.0.0.1:9000"  # where those are reached
    dtype: DType = "auto"  # the same as the shards' and the decoder's
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    num_threads: int | None = Field(default=None, ge=1, le=1024)  # None: cores of this process
    batching: BatchingConfig = BatchingConfig()
    capacity: CapacityConfig = CapacityConfig()
    failures: FailureConfig = FailureConfig()
    limits: RouterLimitsConfig = RouterLimitsConfig()
    text: TextConfig | None = TextConfig()  # None: texts are refused
    load_window_s: int = Field(default=300, ge=1, le=86400)
    drain_timeout_s: float = Field(default=10.0, ge=0)

    @model_validator(mode="after")
    def _shards_are_one_each(self) -> RouterConfig:
        if len(set(self.shards)) != len(self.shards):
            raise ValueError("shards: an application is named twice")
        return self

    def serves(self, model: str) -> bool:
        """Whether a request's model name means this model; the empty name always does."""
        return model in ("", self.model_name, *self.aliases)
