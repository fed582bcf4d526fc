"""The engine's settings and the shape of a model. Frozen, validated, no torch.

`ModelConfig` is one vocabulary for all families: `ModelConfig.from_hf` translates a Hugging Face
`config.json` into it, refusing what the engine does not implement instead of ignoring it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.engine.errors import ConfigError

__all__ = [
    "DType",
    "EngineConfig",
    "Family",
    "GateScores",
    "GatingConfig",
    "MoEConfig",
    "ModelConfig",
    "RopeScaling",
    "validated",
]

DType = Literal["auto", "float32", "bfloat16"]
Family = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"]
GateScores = Literal["softmax", "sigmoid"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

# The table of rotary positions is computed for the whole context when a model loads.
MAX_CONTEXT_LENGTH = 1 << 24

ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(model_class: type[ModelT], values: Mapping[str, Any], prefix: str = "") -> ModelT:
    """`model_class(**values)`, with the first thing that is wrong as a `ConfigError` naming it."""
    try:
        return model_class.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or model_class.__name__
        raise ConfigError(prefix + key, f"{first['msg']}, got {first['input']!r}") from error


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
    stuck_after_s: float = Field(default=120.0, gt=0)  # a step that takes longer will not end
    max_queue_s: float | None = Field(default=None, gt=0)  # None: only the request's deadline

    def context_length(self, model: ModelConfig) -> int:
        """Tokens that a sequence may have: `max_model_len`, or all that the model can tell apart.

        Raises `ConfigError` naming `max_model_len` when it is more than that.
        """
        if self.max_model_len is None:
            return model.context_length
        if self.max_model_len > model.context_length:
            raise ConfigError(
                "max_model_len",
                f"expected at most the model's {model.context_length} positions, "
                f"got {self.max_model_len}",
            )
        return self.max_model_len


class RopeScaling(BaseModel):
    """How rotary positions are stretched beyond the trained length; `layers/rope.py` computes it.

    linear   position interpolation, Chen et al. 2023 (arXiv:2306.15595)
    dynamic  NTK-aware base that grows with the position
    llama3   per-wavelength interpolation of LLaMA 3.1
    yarn     Peng et al. 2023 (arXiv:2309.00071)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rope_type: Literal["linear", "dynamic", "llama3", "yarn"]
    factor: float = Field(ge=1.0)
    original_max_position_embeddings: int | None = Field(default=None, ge=1)
    # llama3
    low_freq_factor: float | None = Field(default=None, gt=0)
    high_freq_factor: float | None = Field(default=None, gt=0)
    # yarn
    attention_factor: float | None = Field(default=None, gt=0)
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        needed: dict[str, tuple[str, ...]] = {
            "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
            "yarn": ("original_max_position_embeddings",),
        }
        for name in needed.get(self.rope_type, ()):
            if getattr(self, name) is None:
                raise ValueError(f"{self.rope_type} scaling needs {name}")
        if self.low_freq_factor is not None and self.low_freq_factor == self.high_freq_factor:
            raise ValueError("low_freq_factor and high_freq_factor must differ")
        return self


class GatingConfig(BaseModel):
    """How a token's experts are chosen and weighed; `layers/gating.py` computes it.

                      scores    renormalise   groups, correction bias, scaling
    Switch            softmax   no            -
    GShard, Mixtral   softmax   yes           -
    Qwen-MoE          softmax   either        -
    DeepSeek-V3       sigmoid   yes           yes

    scores                softmax over all experts, or of each expert a sigmoid
    renormalise           the weights of the chosen are divided by their sum
    num_groups            experts form this many groups of equal size; a token's experts come from
                          the `num_groups_per_token` whose two best scores sum highest
    correction_bias       a learnt bias is added to the scores when choosing, not when weighing
    scaling_factor        a factor on all weights
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_experts: int = Field(ge=1)
    num_experts_per_token: int = Field(ge=1)
    scores: GateScores = "softmax"
    renormalise: bool = True
    num_groups: int = Field(default=1, ge=1)
    num_groups_per_token: int = Field(default=1, ge=1)
    correction_bias: bool = False
    scaling_factor: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.num_experts % self.num_groups:
            raise ValueError(f"num_groups must divide {self.num_experts} experts")
        if self.num_groups_per_token > self.num_groups:
            raise ValueError(f"num_groups_per_token must be 1 to {self.num_groups}")
        eligible = self.num_experts // self.num_groups * self.num_groups_per_token
        if self.num_experts_per_token > eligible:
            raise ValueError(f"num_experts_per_token must be 1 to {eligible}")
        return self


class MoEConfig(BaseModel):
    """The sparse layers of a model: `layers` are their numbers, ascending; others are dense."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gating: GatingConfig
    intermediate_size: int = Field(ge=1)  # inside one expert
    layers: tuple[int, ...] = Field(min_length=1)
    shared_intermediate_size: int | None = Field(default=None, ge=1)  # None: no shared expert


class ModelConfig(BaseModel):
    """The shape of a decoder, whatever its family. The flags are the differences between families.

    `sliding_window` counts the tokens a query sees, itself included; `sliding_layers` says, per
    layer, whether it applies there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: Family
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    norm_eps: float = Field(gt=0)
    activation: Activation

    rope_theta: float = Field(default=10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    sliding_window: int | None = Field(default=None, ge=1)
    sliding_layers: tuple[bool, ...] = ()  # empty: all layers, when there is a sliding_window

    qkv_bias: bool = False
    out_bias: bool = False  # of the attention's output projection
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm over head_dim of queries and keys (Qwen3)
    tie_word_embeddings: bool = False

    moe: MoEConfig | None = None  # None: every MLP is dense

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    @classmethod
    def from_hf(
        cls, config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None
    ) -> ModelConfig:
        """Translates the content of a Hugging Face `config.json` (transformers 4 or 5 spelling).

        `generation_config` is that of `generation_config.json`; its end tokens come first.
        Raises `ConfigError` naming the key for an unknown architecture or unsupported setting.
        """
        from services.engine.hf_config import translate  # it needs this class

        return translate(config, generation_config or {})

    @property
    def context_length(self) -> int:
        """Tokens whose positions the model can tell apart, counting rotary scaling.

        linear and dynamic scaling state the trained length and stretch it; yarn stretches its own
        original length; llama3 already counts it in `max_position_embeddings`.
        """
        scaling = self.rope_scaling
        if scaling is None or scaling.rope_type == "llama3":
            return self.max_position_embeddings
        if scaling.original_max_position_embeddings is not None and scaling.rope_type == "yarn":
            return int(scaling.original_max_position_embeddings * scaling.factor)
        return int(self.max_position_embeddings * scaling.factor)

    @property
    def expert_num_parameters(self) -> int:
        """Weights of one expert, 0 in a dense model: what moving it or holding it costs."""
        return 0 if self.moe is None else 3 * self.hidden_size * self.moe.intermediate_size

    def window(self, layer: int) -> int | None:
        """The sliding window of layer number `layer`, None where it sees the whole context."""
        if self.sliding_layers and not self.sliding_layers[layer]:
            return None
        return self.sliding_window

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) is not a multiple of "
                f"num_kv_heads ({self.num_kv_heads})"
            )
        if self.context_length > MAX_CONTEXT_LENGTH:
            raise ValueError(f"a context of more than {MAX_CONTEXT_LENGTH} tokens")
        if self.family != "gpt2" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")
        if self.sliding_layers and len(self.sliding_layers) != self.num_layers:
            raise ValueError(f"sliding_layers needs {self.num_layers} entries")
        if any(self.sliding_layers) and self.sliding_window is None:
            raise ValueError("sliding_layers needs a sliding_window")
        sparse = () if self.moe is None else self.moe.layers
        if list(sparse) != [layer for layer in range(self.num_layers) if layer in sparse]:
            raise ValueError(f"moe.layers must ascend within 0 to {self.num_layers - 1}")
        for name, ids in (("bos_token_id", (self.bos_token_id,)), ("eos", self.eos_token_ids)):
            if any(i is not None and not 0 <= i < self.vocab_size for i in ids):
                raise ValueError(f"{name}: {ids} is outside the vocabulary of {self.vocab_size}")
        return self
