"""Layers against transformers' own, and the sparse layer against a dense sum over all experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from services.engine.config import ModelConfig
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import Experts, MixtureOfExperts, TopKGate
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


def random_expert(hidden: int, inner: int) -> GatedMLP:
    return GatedMLP(
        Linear(torch.randn(2 * inner, hidden)), Linear(torch.randn(hidden, inner)), "silu"
    )


@given(
    num_tokens=st.integers(1, 40),
    num_experts=st.integers(1, 8),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_mixture_equals_a_dense_sum_over_all_experts(
    num_tokens: int, num_experts: int, data: st.DataObject, seed: int
) -> None:
    torch.manual_seed(seed)
    k = data.draw(st.integers(1, num_experts))
    experts = [random_expert(8, 6) for _ in range(num_experts)]
    gate = TopKGate(Linear(torch.randn(num_experts, 8)), k)
    x = torch.randn(num_tokens, 8)
    weights, expert_ids = gate(x)
    dense = torch.zeros(num_tokens, num_experts).scatter(1, expert_ids, weights)
    expected = sum(dense[:, [e]] * expert(x) for e, expert in enumerate(experts))
    ours = MixtureOfExperts(gate, Experts(experts))(x)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)


def test_gate_weights_are_the_softmax_over_the_chosen() -> None:
    router = torch.randn(6, 8)
    x = torch.randn(5, 8)
    weights, expert_ids = TopKGate(Linear(router), 2)(x)
    chosen = (x @ router.T).gather(1, expert_ids)
    torch.testing.assert_close(weights, chosen.softmax(dim=-1))


def test_tokens_of_other_rows_do_not_change_a_tokens_mixture() -> None:
    layer = MixtureOfExperts(
        TopKGate(Linear(torch.randn(4, 8)), 2), Experts([random_expert(8, 6) for _ in range(4)])
    )
    x = torch.randn(9, 8)
    torch.testing.assert_close(layer(x)[3:4], layer(x[3:4]))
