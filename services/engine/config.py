"""The engine's settings and the shape of a model. Frozen, validated, no torch.

`ModelConfig` is one vocabulary for all families: `ModelConfig.from_hf` translates a Hugging Face
`config.json` into it, refusing what the engine does not implement instead of ignoring it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EngineConfig"]

DType = Literal["auto", "float32", "bfloat16"]


class EngineConfig(BaseModel):
    """How an engine runs a model. Every size that memory or fairness depends on is stated here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: DType = "auto"  # auto: the checkpoint's own
    device: str = "cpu"
    attention_backend: Literal["auto", "reference", "cpu"] = "auto"
    num_threads: int | None = Field(default=None, ge=1, le=1024)  # None: cores of this process

    block_size: int = Field(default=16, ge=1, le=256)  # tokens per KV block
    kv_cache_bytes: int = Field(default=256 << 20, ge=1 << 10)  # the number of blocks follows
    enable_prefix_caching: bool = True

    max_model_len: int | None = Field(default=None, ge=1)  # None: the model's own
    max_num_seqs: int = Field(default=64, ge=1, le=4096)  # running sequences
    max_num_batched_tokens: int = Field(default=2048, ge=1)  # token budget of a step
    max_num_waiting: int = Field(default=512, ge=0)  # QueueFullError beyond it
    max_queue_s: float | None = Field(default=None, gt=0)  # None: only the request's deadline
