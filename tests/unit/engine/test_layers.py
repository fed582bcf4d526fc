"""Layers against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from services.engine.config import ModelConfig
from services.engine.layers.norm import RMSNorm
from services.engine.layers.rope import Rope

TRAINED_LENGTH = 64


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)


SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
    },
    "yarn-tuned": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
    "yarn-attention-factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
        "attention_factor": 0.7,
    },
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
}


def ropes(scaling: dict[str, Any], **settings: Any) -> tuple[Rope, LlamaRotaryEmbedding]:
    """Ours and theirs, of one config."""
    theirs = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=96,
        num_attention_heads=4,
        num_hidden_layers=1,
        max_position_embeddings=TRAINED_LENGTH,
        rope_parameters={"rope_theta": 10_000.0, **scaling, **settings},
        architectures=["LlamaForCausalLM"],
    )
    ours = ModelConfig.from_hf(theirs.to_dict())
    return Rope(ours, torch.float32, torch.device("cpu")), LlamaRotaryEmbedding(theirs)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_rope_equals_transformers_within_the_trained_length(name: str, theta: float) -> None:
    ours, theirs = ropes(SCALINGS[name], rope_theta=theta)
    positions = torch.randperm(TRAINED_LENGTH)  # the tokens of a step stand in any order
    q, k = torch.randn(TRAINED_LENGTH, 4, 24), torch.randn(TRAINED_LENGTH, 2, 24)
    expected = apply_rotary_pos_emb(q[None], k[None], *theirs(q, positions[None]), unsqueeze_dim=2)
    rotation = ours(positions)
    for x, their_x in zip((q, k), expected, strict=True):
        torch.testing.assert_close(ours.rotate_(x.clone(), rotation), their_x[0], atol=5e-5, rtol=0)


def test_dynamic_rope_beyond_the_trained_length_equals_transformers_decoding() -> None:
    ours, theirs = ropes(SCALINGS["dynamic"])
    x = torch.randn(1, 1, 24)
    for position in range(TRAINED_LENGTH - 3, 4 * TRAINED_LENGTH):
        one = torch.tensor([position])
        expected, _ = apply_rotary_pos_emb(x[None], x[None], *theirs(x, one[None]), unsqueeze_dim=2)
        torch.testing.assert_close(
            ours.rotate_(x.clone(), ours(one)), expected[0], atol=5e-5, rtol=0
        )


def test_rope_has_a_rotation_for_the_whole_stretched_context() -> None:
    ours, _ = ropes(SCALINGS["linear"])
    assert ours.cos.shape == (3 * TRAINED_LENGTH, 24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_transformers(dtype: torch.dtype) -> None:
    x, weight = torch.randn(7, 64).to(dtype), torch.randn(64).to(dtype)
    theirs = LlamaRMSNorm(64, eps=1e-5)
    theirs.weight.data = weight
    # In bfloat16 theirs rounds once more, before it multiplies by the weight.
    torch.testing.assert_close(RMSNorm(weight, 1e-5)(x), theirs(x).to(dtype))
