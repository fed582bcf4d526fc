"""Hugging Face `config.json` -> `ModelConfig`. Knows transformers' spellings, no torch.

The rule: a key that transformers reads for an architecture and that changes the forward pass is
translated, or refused by name where the engine does not implement its value. Keys that
transformers does not read for that architecture (training settings, tool versions) cannot change
what the model computes there, and so are of no interest here either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.engine.config import ModelConfig, RopeScaling, validated
from services.engine.errors import ConfigError

__all__ = ["ARCHITECTURES", "translate"]

HfConfig = Mapping[str, Any]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def translate(config: HfConfig, generation_config: HfConfig) -> ModelConfig:
    """See `ModelConfig.from_hf`."""
    architecture = _architecture(config)
    _refuse(config, "quantization_config", "quantised checkpoints are not supported", None)
    _refuse(config, "auto_map", "checkpoints that bring their own code are not supported", None)
    # A begin or end token outside the vocabulary can never occur: there is none, then.
    vocab = range(_size(config, "vocab_size"))
    eos = _get(generation_config, "eos_token_id", config.get("eos_token_id"))
    eos_ids = eos if isinstance(eos, list) else [eos]
    bos = config.get("bos_token_id")
    values = {
        **ARCHITECTURES[architecture](config),
        "vocab_size": len(vocab),
        "bos_token_id": bos if bos in vocab else None,
        "eos_token_ids": tuple(i for i in eos_ids if i in vocab),
    }
    return validated(ModelConfig, values)


def _architecture(config: HfConfig) -> str:
    known = ", ".join(ARCHITECTURES)
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise ConfigError("architectures", f"missing; expected one of {known}")
    for name in names:
        if name in ARCHITECTURES:
            return str(name)
    raise ConfigError("architectures", f"{', '.join(map(str, names))} is not one of {known}")


def _gpt2(config: HfConfig) -> dict[str, Any]:
    for key in (
        "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
        "add_cross_attention",
    ):
        _refuse(config, key, "not supported", False)
    _refuse(config, "scale_attn_weights", "unscaled attention is not supported", True)
    hidden_size = _size(config, "n_embd")
    num_heads = _size(config, "n_head")
    return {
        "family": "gpt2",
        "hidden_size": hidden_size,
        "num_layers": _size(config, "n_layer"),
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": _divide(hidden_size, num_heads, "n_head"),
        "intermediate_size": _get(config, "n_inner", 4 * hidden_size),
        "max_position_embeddings": _size(config, "n_positions"),
        "norm_eps": _get(config, "layer_norm_epsilon", 1e-5),
        "activation": _activation(config, "activation_function", "gelu_new"),
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": _get(config, "tie_word_embeddings", True),
    }


def _llama_like(config: HfConfig, family: str, default_theta: float = 10_000.0) -> dict[str, Any]:
    """What LLaMA and all that descend from it share."""
    hidden_size = _size(config, "hidden_size")
    num_heads = _size(config, "num_attention_heads")
    head_dim = config.get("head_dim")
    theta, scaling = _rope(config, default_theta)
    return {
        "family": family,
        "hidden_size": hidden_size,
        "num_layers": _size(config, "num_hidden_layers"),
        "num_heads": num_heads,
        "num_kv_heads": _get(config, "num_key_value_heads", num_heads),
        "head_dim": head_dim or _divide(hidden_size, num_heads, "num_attention_heads"),
        "intermediate_size": _size(config, "intermediate_size"),
        "max_position_embeddings": _size(config, "max_position_embeddings"),
        "norm_eps": _get(config, "rms_norm_eps", 1e-6),
        "activation": _activation(config, "hidden_act", "silu"),
        "tie_word_embeddings": _get(config, "tie_word_embeddings", False),
        "rope_theta": theta,
        "rope_scaling": scaling,
    }


def _llama(config: HfConfig) -> dict[str, Any]:
    bias = _get(config, "attention_bias", False)
    return _llama_like(config, "llama") | {
        "qkv_bias": bias,
        "out_bias": bias,
        "mlp_bias": _get(config, "mlp_bias", False),
    }


def _mistral(config: HfConfig) -> dict[str, Any]:
    window = config.get("sliding_window", 4096)  # null: none
    if window is not None and "full_attention" in (config.get("layer_types") or ()):
        raise ConfigError("layer_types", "Mistral with windows in some layers is not supported")
    return _llama_like(config, "mistral") | {"sliding_window": window}


def _qwen2(config: HfConfig) -> dict[str, Any]:
    windows = _qwen_windows(config, _from_max_window_layers(config))
    return _llama_like(config, "qwen2") | windows | {"qkv_bias": True}


def _qwen3(config: HfConfig) -> dict[str, Any]:
    bias = _get(config, "attention_bias", False)
    return (
        _llama_like({"head_dim": 128, **config}, "qwen3")
        | _qwen_windows(config, _from_max_window_layers(config))
        | {"qk_norm": True, "qkv_bias": bias, "out_bias": bias}
    )


def _mixtral(config: HfConfig) -> dict[str, Any]:
    values = _llama_like({"rms_norm_eps": 1e-5, **config}, "mixtral", default_theta=1e6)
    gating = {
        "num_experts": _num_experts(config, 8),
        "num_experts_per_token": _get(config, "num_experts_per_tok", 2),
    }
    return values | {
        "sliding_window": config.get("sliding_window"),
        "moe": {
            "gating": gating,
            "intermediate_size": values["intermediate_size"],
            "layers": tuple(range(values["num_layers"])),
        },
    }


def _qwen2_moe(config: HfConfig) -> dict[str, Any]:
    first_full = _size(config, "max_window_layers", 28, at_least=0)
    values = _llama_like(config, "qwen2_moe")
    values |= _qwen_windows(config, lambda layer: layer % 2 == 0 and layer < first_full)
    moe = _qwen_experts(config, num_experts=60, per_token=4, inner=1408)
    if moe is not None:
        moe["shared_intermediate_size"] = _size(config, "shared_expert_intermediate_size", 5632)
    return values | {"qkv_bias": _get(config, "qkv_bias", True), "moe": moe}


def _qwen3_moe(config: HfConfig) -> dict[str, Any]:
    bias = _get(config, "attention_bias", False)
    return _llama_like(config, "qwen3_moe") | {
        "sliding_window": _qwen_window(config),
        "qk_norm": True,
        "qkv_bias": bias,
        "out_bias": bias,
        "moe": _qwen_experts(config, num_experts=128, per_token=8, inner=768),
    }


def _qwen_experts(
    config: HfConfig, *, num_experts: int, per_token: int, inner: int
) -> dict[str, Any] | None:
    """Which layers are sparse, and how; the arguments are transformers' defaults."""
    step = _size(config, "decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or ()
    num_layers = _size(config, "num_hidden_layers")
    layers = tuple(i for i in range(num_layers) if i not in dense and (i + 1) % step == 0)
    if not layers:
        return None
    gating = {
        "num_experts": _num_experts(config, num_experts),
        "num_experts_per_token": _get(config, "num_experts_per_tok", per_token),
        "renormalise": _get(config, "norm_topk_prob", False),
    }
    size = _size(config, "moe_intermediate_size", inner)
    return {"gating": gating, "intermediate_size": size, "layers": layers}


def _num_experts(config: HfConfig, default: int) -> int:
    """transformers 5 may write either name for any family."""
    return _size(config, "num_local_experts", _get(config, "num_experts", default))


ARCHITECTURES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    "GPT2LMHeadModel": _gpt2,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "MixtralForCausalLM": _mixtral,
    "Qwen2MoeForCausalLM": _qwen2_moe,
    "Qwen3MoeForCausalLM": _qwen3_moe,
}


def _qwen_window(config: HfConfig) -> int | None:
    return _get(config, "sliding_window", 4096) if config.get("use_sliding_window") else None


def _qwen_windows(config: HfConfig, by_default: Callable[[int], bool]) -> dict[str, Any]:
    """The window applies to the layers that `layer_types` names, else to those of the default."""
    window = _qwen_window(config)
    num_layers = _size(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if kinds is None:
        sliding = tuple(window is not None and by_default(layer) for layer in range(num_layers))
        return {"sliding_window": window, "sliding_layers": sliding}
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise ConfigError("layer_types", f"{kind!r} is not supported")
    sliding = tuple(kind == "sliding_attention" for kind in kinds)
    if any(sliding) and window is None:
        raise ConfigError("layer_types", "sliding_attention without a sliding window")
    return {"sliding_window": window, "sliding_layers": sliding}


def _from_max_window_layers(config: HfConfig) -> Callable[[int], bool]:
    """Qwen2 and Qwen3 slide from layer `max_window_layers` on."""
    first = _size(config, "max_window_layers", 28, at_least=0)
    return lambda layer: layer >= first


def _rope(config: HfConfig, default_theta: float) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling, from `rope_theta` + `rope_scaling` or from `rope_parameters`."""
    key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    values = dict(config.get(key) or {})
    if any(isinstance(value, Mapping) for value in values.values()):
        raise ConfigError(key, "rotary parameters per layer type are not supported")
    for holder, prefix in ((config, ""), (values, f"{key}.")):
        if holder.get("partial_rotary_factor") not in (None, 1.0):
            raise ConfigError(f"{prefix}partial_rotary_factor", "partial rotation is not supported")
    values.pop("partial_rotary_factor", None)
    theta = values.pop("rope_theta", None) or _get(config, "rope_theta", default_theta)
    legacy_type = values.pop("type", "default")  # the spelling before transformers 4.43
    rope_type = values.pop("rope_type", legacy_type)
    if rope_type == "default":
        if values:
            raise ConfigError(f"{key}.{next(iter(values))}", "has no meaning without a rope_type")
        return theta, None
    if rope_type in ("llama3", "yarn"):
        _complete_stretched(values, config)
    values = {name: value for name, value in values.items() if value is not None}
    return theta, validated(RopeScaling, {"rope_type": rope_type, **values}, prefix=f"{key}.")


def _complete_stretched(values: dict[str, Any], config: HfConfig) -> None:
    """Fills in the trained length and the factor the way transformers does."""
    longest = _size(config, "max_position_embeddings")
    original = config.get("original_max_position_embeddings")  # outranks the nested one
    original = original or values.get("original_max_position_embeddings") or longest
    values["original_max_position_embeddings"] = original
    if values.get("factor") is None:
        values["factor"] = longest / original


def _activation(config: HfConfig, key: str, default: str) -> str:
    name = _get(config, key, default)
    if name not in _ACTIVATIONS:
        raise ConfigError(key, f"expected one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]


def _get(config: HfConfig, key: str, default: Any) -> Any:
    """The value, or the default where the key is missing or null."""
    value = config.get(key)
    return default if value is None else value


def _size(config: HfConfig, key: str, default: int | None = None, at_least: int = 1) -> int:
    value = _get(config, key, default)
    if value is None:
        raise ConfigError(key, "missing from config.json")
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(key, f"expected an integer >= {at_least}, got {value!r}")
    return value


def _divide(total: int, parts: int, key: str) -> int:
    if total % parts:
        raise ConfigError(key, f"expected a divisor of the hidden size {total}, got {parts}")
    return total // parts


def _refuse(config: HfConfig, key: str, message: str, allowed: Any) -> None:
    if config.get(key) not in (None, allowed):
        raise ConfigError(key, f"{message}, got {config[key]!r}")
