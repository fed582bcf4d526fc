"""Settings of one image application: which model, how it computes, what a request may ask.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.image.types import SchedulerName
from services.runtime.message_size import MAX_CONTENT_BYTES

__all__ = [
    "BatchingConfig",
    "DefaultsConfig",
    "ImageConfig",
    "LoraConfig",
    "RequestLimitsConfig",
]


class LoraConfig(BaseModel):
    """Low-rank changes to the weights, merged into them at load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128)  # what GetImageModel tells
    path: str = Field(min_length=1)  # a folder or a safetensors file, as `model_path`
    scale: float = Field(default=1.0, ge=-4.0, le=4.0, allow_inf_nan=False)


class BatchingConfig(BaseModel):
    """How pictures of concurrent callers share the model's steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_running: int = Field(default=8, ge=1)  # pictures in the batch
    max_waiting: int = Field(default=64, ge=1)  # pictures in line; beyond it: Overloaded
    # Rows (a picture with guidance is two) times latent pixels of one step: what bounds its memory
    # and its time. One picture alone is always let through.
    max_latent_pixels_per_step: int = Field(default=16 * 64 * 64, ge=1)


class DefaultsConfig(BaseModel):
    """What holds where a request says nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: int = Field(default=30, ge=1)
    guidance_scale: float = Field(default=7.5, ge=1.0, allow_inf_nan=False)
    scheduler: SchedulerName = SchedulerName.DPM_SOLVER_PP_2M
    karras_sigmas: bool | None = None  # None: as the folder's scheduler has it
    width: int | None = Field(default=None, ge=1)  # None: the model's own
    height: int | None = Field(default=None, ge=1)
    strength: float = Field(default=0.8, gt=0, le=1)
    preview_every: int = Field(default=5, ge=1)  # steps, where previews are asked for

    @model_validator(mode="after")
    def _ddim_has_levels_of_its_own(self) -> DefaultsConfig:
        if self.karras_sigmas and self.scheduler is SchedulerName.DDIM:
            raise ValueError("karras_sigmas: has no effect with the scheduler 'ddim'")
        return self


class RequestLimitsConfig(BaseModel):
    """Limits on what one call may ask for, checked before it costs anything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_prompt_bytes: int = Field(default=16 << 10, ge=1)  # UTF-8, before it is tokenized
    max_n: int = Field(default=10, ge=1, le=1024)
    max_width: int = Field(default=2048, ge=1)
    max_height: int = Field(default=2048, ge=1)
    max_pixels: int = Field(default=1 << 20, ge=1, le=MAX_CONTENT_BYTES // 3)  # of one picture
    max_num_steps: int = Field(default=150, ge=1, le=1000)
    max_guidance_scale: float = Field(default=30.0, ge=1.0, allow_inf_nan=False)
    # Of a picture to edit, and of its mask: two as large as the default fit one message.
    max_image_bytes: int = Field(default=7 << 20, ge=1, le=MAX_CONTENT_BYTES)
    max_image_pixels: int = Field(default=16 << 20, ge=1)  # of the same, once decoded
    default_timeout_s: float = Field(default=600.0, gt=0)  # for calls without a deadline


class ImageConfig(BaseModel):
    """One application: one diffusers folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=128)
    model_path: str = Field(min_length=1)  # a folder, absolute or below the root
    aliases: tuple[str, ...] = ()  # other names the model answers to
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    # Of the UNet. auto: bfloat16 where the device multiplies it by instructions of its own.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    num_threads: int | None = Field(default=None, ge=1, le=1024)  # None: cores of this process
    # Larger pictures are decoded in tiles of so many pixels a side, which bounds the memory.
    tile_size: int = Field(default=512, ge=64)
    loras: tuple[LoraConfig, ...] = ()
    batching: BatchingConfig = BatchingConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    limits: RequestLimitsConfig = RequestLimitsConfig()
    # The CLIP application that `rank_by_similarity` asks. None: it cannot be asked for.
    ranking_application: str | None = Field(default=None, min_length=1)
    grpc_target: str = "127.0.0.1:9000"  # where that application is reached
    # Prompts, a step or a decoding that takes longer: the replica is replaced.
    stuck_after_s: float = Field(default=300.0, gt=0)
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _what_is_promised_can_be_served(self) -> ImageConfig:
        limits, batching, defaults = self.limits, self.batching, self.defaults
        if limits.max_n > batching.max_waiting:
            raise ValueError(
                f"batching.max_waiting: expected at least limits.max_n ({limits.max_n}), "
                "or the largest call could never be served"
            )
        if defaults.num_steps > limits.max_num_steps:
            raise ValueError("defaults.num_steps: is above limits.max_num_steps")
        if defaults.guidance_scale > limits.max_guidance_scale:
            raise ValueError("defaults.guidance_scale: is above limits.max_guidance_scale")
        return self

    @model_validator(mode="after")
    def _names_are_one_each(self) -> ImageConfig:
        names = [lora.name for lora in self.loras]
        if len(set(names)) != len(names):
            raise ValueError("loras: a name stands for two of them")
        return self

    def serves(self, model: str) -> bool:
        """Whether a request's model name means this model; the empty name always does."""
        return model in ("", self.model_name, *self.aliases)
