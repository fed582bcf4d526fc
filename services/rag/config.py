"""Settings of the RAG application: which services it asks, what a question may ask for.

Frozen and validated; an unknown key fails at start and is named. Reads no environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ConversationConfig",
    "LimitsConfig",
    "ModelConfig",
    "RagConfig",
    "StageShares",
]

MAX_SHARE = 0.9


class ModelConfig(BaseModel):
    """One generation application that may answer, and how it is prompted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: Literal["orrery", "instruct"] = "instruct"
    aliases: tuple[str, ...] = ()  # other names by which a question may ask for it


class StageShares(BaseModel):
    """Least share of the time that earlier stages leave to each stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rewrite: float = Field(default=0.1, ge=0, le=MAX_SHARE)
    queries: float = Field(default=0.1, ge=0, le=MAX_SHARE)
    hyde: float = Field(default=0.15, ge=0, le=MAX_SHARE)
    embed: float = Field(default=0.05, ge=0, le=MAX_SHARE)
    search: float = Field(default=0.1, ge=0, le=MAX_SHARE)
    pack: float = Field(default=0.05, ge=0, le=MAX_SHARE)
    generate: float = Field(default=0.3, ge=0, le=MAX_SHARE)

    @model_validator(mode="after")
    def _leave_something_to_the_first(self) -> StageShares:
        total = sum(self.by_stage().values())
        if total > MAX_SHARE:
            raise ValueError(f"shares: expected a sum of at most {MAX_SHARE}, got {total:g}")
        return self

    def by_stage(self) -> Mapping[str, float]:
        """The shares by the names of the stages."""
        shares: dict[str, float] = self.model_dump()
        return shares


class ConversationConfig(BaseModel):
    """How long conversations are remembered, and how much of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ttl_s: int = Field(default=24 * 3600, ge=1)  # since the last turn
    max_turns: int = Field(default=50, ge=1)  # the oldest are forgotten
    max_prompt_turns: int = Field(default=4, ge=0)  # put before the model, where they fit


class LimitsConfig(BaseModel):
    """Limits on what one call may ask for, checked before it costs anything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_question_bytes: int = Field(default=4096, ge=1)
    max_k: int = Field(default=100, ge=1)
    max_queries: int = Field(default=8, ge=1)
    max_samples: int = Field(default=16, ge=1)
    max_tokens: int = Field(default=4096, ge=1)
    max_batch_questions: int = Field(default=256, ge=1)
    max_batch_concurrency: int = Field(default=8, ge=1)  # questions of one batch at a time
    max_running: int = Field(default=128, ge=1)  # questions; beyond it: Overloaded
    default_timeout_s: float = Field(default=120.0, gt=0)  # for calls without a deadline


class RagConfig(BaseModel):
    """One RAG application."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    grpc_target: str = "127.0.0.1:9000"  # where the other applications are reached
    retrieval_application: str = "retrieval"
    embedding_application: str = "embedding"  # for collections that name none
    models: dict[str, ModelConfig] = Field(min_length=1)  # by generation application
    default_model: str = Field(min_length=1)
    default_k: int = Field(default=8, ge=1)
    # Least similarity of a passage's vector to the question's; not applied to searches by words.
    default_min_score: float | None = Field(default=0.15, ge=-1, le=1)
    sample_temperature: float = Field(default=0.7, gt=0, le=2)  # where several are drawn
    shares: StageShares = StageShares()
    conversations: ConversationConfig = ConversationConfig()
    limits: LimitsConfig = LimitsConfig()
    drain_timeout_s: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _default_is_served(self) -> RagConfig:
        if self.default_model not in self.models:
            raise ValueError(
                f"default_model: expected one of {', '.join(self.models)}, "
                f"got {self.default_model!r}"
            )
        names = [name for key, model in self.models.items() for name in (key, *model.aliases)]
        if len(set(names)) != len(names):
            raise ValueError("models: a name or alias stands for two of them")
        if self.default_k > self.limits.max_k:
            raise ValueError("default_k: is above limits.max_k")
        return self

    def application_of(self, model: str) -> str | None:
        """The generation application that a question's model name means; None: no such one."""
        if not model:
            return self.default_model
        for name, settings in self.models.items():
            if model in (name, *settings.aliases):
                return name
        return None
