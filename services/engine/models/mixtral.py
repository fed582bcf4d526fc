"""Mixtral: LLaMA whose MLP is a sparse mixture of experts (Jiang et al. 2024, arXiv:2401.04088).

The experts run in this process. Names of weights as `MixtralForCausalLM` writes them.
"""

from __future__ import annotations

from services.engine.checkpoint import TensorSource
from services.engine.config import ModelConfig
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import Experts, MixtureOfExperts, TopKGate
from services.engine.models.llama import LlamaDecoder

__all__ = ["mixtral_decoder"]


def mixtral_decoder(config: ModelConfig, weights: TensorSource) -> LlamaDecoder:
    return LlamaDecoder(config, weights, make_mlp=_sparse_mlp)


def _sparse_mlp(config: ModelConfig, weights: TensorSource, prefix: str) -> MixtureOfExperts:
    prefix += "block_sparse_moe."
    router = weights.take(prefix + "gate.weight", (config.num_experts, config.hidden_size))
    experts = [
        _expert(config, weights, f"{prefix}experts.{expert}.")
        for expert in range(config.num_experts)
    ]
    return MixtureOfExperts(
        TopKGate(Linear(router), config.num_experts_per_token), Experts(experts)
    )


def _expert(config: ModelConfig, weights: TensorSource, prefix: str) -> GatedMLP:
    inner, hidden = config.intermediate_size, config.hidden_size
    gate_up = weights.take_fused(
        [prefix + "w1.weight", prefix + "w3.weight"], [(inner, hidden)] * 2
    )
    down = weights.take(prefix + "w2.weight", (hidden, inner))
    return GatedMLP(Linear(gate_up), Linear(down), config.activation)
