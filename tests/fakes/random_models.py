"""Small checkpoints with random weights, written by transformers: one per family and variant.

Every parameter is random, norms and biases too, so that a weight that is left out or misplaced
shows; and large enough that the most likely token is decided by a clear margin.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers

VOCAB_SIZE = 199  # not a multiple of anything

_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}
_LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


_QWEN_MOE = _LLAMA | {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
}


def _rope(rope_type: str, **settings: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, **settings}}


# name -> (prefix of the transformers classes, config)
RANDOM_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT2),
    "llama-mha": ("Llama", _LLAMA | {"num_key_value_heads": 4}),
    "llama-gqa": ("Llama", _LLAMA),
    "llama-biases": ("Llama", _LLAMA | {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama-tied": ("Llama", _LLAMA | {"tie_word_embeddings": True}),
    "llama-rope-llama3": ("Llama", _LLAMA | {"rope_parameters": _LLAMA3_ROPE}),
    "llama-rope-linear": ("Llama", _LLAMA | _rope("linear", factor=2.0)),
    # Prompts stay within the trained length, outputs go well beyond it.
    "llama-rope-dynamic": (
        "Llama",
        _LLAMA | _rope("dynamic", factor=4.0) | {"max_position_embeddings": 48},
    ),
    "llama-rope-yarn": ("Llama", _LLAMA | {"rope_parameters": _YARN_ROPE}),
    # Shorter than every prompt of the equality tests.
    "mistral-window": ("Mistral", _LLAMA | {"sliding_window": 13}),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen2-window": (
        "Qwen2",
        _LLAMA | {"use_sliding_window": True, "sliding_window": 13, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", _LLAMA | {"head_dim": 32}),
    "mixtral": ("Mixtral", _LLAMA | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2Moe", _QWEN_MOE | {"shared_expert_intermediate_size": 56}),
    "qwen3-moe": ("Qwen3Moe", _QWEN_MOE | {"head_dim": 32}),
    "qwen3-moe-some-layers": (
        "Qwen3Moe",
        _QWEN_MOE | {"head_dim": 32, "norm_topk_prob": False, "mlp_only_layers": [1]},
    ),
}


def random_model(name: str, seed: int = 0, **overrides: Any) -> transformers.PreTrainedModel:
    """The transformers model of that name in `RANDOM_MODELS`, float32, without end tokens."""
    prefix, settings = RANDOM_MODELS[name]
    ends = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": None}
    config_class = getattr(transformers, f"{prefix}Config")
    model_class = getattr(
        transformers, f"{prefix}LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM"
    )
    config = config_class(vocab_size=VOCAB_SIZE, **{**ends, **settings, **overrides})
    model: transformers.PreTrainedModel = model_class(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.16 if parameter.dim() > 1 else 0.3
            around = 1.0 if parameter.dim() == 1 and bool(parameter[0] == 1) else 0.0
            parameter.normal_(around, spread, generator=generator)
    return model


def save_random_model(
    folder: Path, name: str = "llama-gqa", seed: int = 0, **overrides: Any
) -> Path:
    """Writes such a model to `folder` as transformers does, and returns the folder."""
    os.makedirs(folder, exist_ok=True)
    random_model(name, seed, **overrides).save_pretrained(folder)
    return folder
