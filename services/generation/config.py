"""Settings of one generation application: which model, which backend, what a request may ask.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.engine.config import EngineConfig

__all__ = ["GenerationConfig", "RemoteExpertsConfig", "RequestLimitsConfig", "VLLMConfig"]


class VLLMConfig(BaseModel):
    """What the vLLM backend passes on to `vllm.AsyncEngineArgs`, under vLLM's own names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str = "auto"
    max_model_len: int | None = Field(default=None, ge=1)
    max_num_seqs: int = Field(default=64, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    max_num_waiting: int = Field(default=512, ge=0)  # ours: vLLM's own queue has no bound
    block_size: int | None = Field(default=None, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_memory_bytes: int | None = Field(default=None, ge=1)  # in place of the share above
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    quantization: str | None = None
    enable_prefix_caching: bool = True
    enforce_eager: bool = False


class RemoteExpertsConfig(BaseModel):
    """Where the `moe` service of this model is, and how long it is waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    application: str = Field(min_length=1)  # its router
    grpc_target: str = "127.0.0.1:9000"
    timeout_s: float = Field(default=20.0, gt=0)  # of one layer; after that: UNAVAILABLE
    start_timeout_s: float = Field(default=120.0, gt=0)


class RequestLimitsConfig(BaseModel):
    """Limits on what one call may carry, checked before anything is tokenized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_prompt_bytes: int = Field(default=1 << 20, ge=1)  # UTF-8, of one prompt
    max_chat_messages: int = Field(default=1024, ge=1)
    max_batch_prompts: int = Field(default=256, ge=1)
    max_batch_concurrency: int = Field(default=32, ge=1)  # prompts of one batch in the engine
    max_detokenize_ids: int = Field(default=1 << 18, ge=1)
    default_timeout_s: float = Field(default=600.0, gt=0)  # for calls without a deadline


class GenerationConfig(BaseModel):
    """One application: one model behind one backend."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=128)
    model_path: str = Field(min_length=1)  # a folder, absolute or below the root, or a hub name
    aliases: tuple[str, ...] = ()  # other names the model answers to
    backend: Literal["native", "vllm"] = "native"
    engine: EngineConfig = EngineConfig()
    # Where the experts of a mixture are computed: in this process, or by the `moe` service.
    experts: Literal["local", "service"] = "local"
    moe: RemoteExpertsConfig | None = None
    vllm: VLLMConfig | None = None
    limits: RequestLimitsConfig = RequestLimitsConfig()
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _settings_of_the_backend_only(self) -> GenerationConfig:
        if self.backend == "vllm" and "engine" in self.model_fields_set:
            raise ValueError("engine: has no effect with backend 'vllm'; use the key vllm")
        if self.backend == "native" and self.vllm is not None:
            raise ValueError("vllm: has no effect with backend 'native'; use the key engine")
        return self

    @model_validator(mode="after")
    def _service_of_experts_is_known(self) -> GenerationConfig:
        if self.experts == "service" and self.backend == "vllm":
            raise ValueError("experts: 'service' needs the backend 'native'")
        if self.experts == "service" and self.moe is None:
            raise ValueError("moe: expected the application that computes the experts")
        if self.experts == "local" and self.moe is not None:
            raise ValueError("moe: has no effect with experts 'local'")
        return self

    def serves(self, model: str) -> bool:
        """Whether a request's model name means this model; the empty name always does."""
        return model in ("", self.model_name, *self.aliases)
