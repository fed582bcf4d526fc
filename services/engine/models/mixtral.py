"""Sparse decoders: LLaMA with a mixture of experts in the place of MLPs.

Mixtral (Jiang et al. 2024, arXiv:2401.04088) in all layers, Qwen2-MoE and Qwen3-MoE in some. The
experts run in this process, or wherever a `SparseLayer` has them computed. Names of weights as
`MixtralForCausalLM` and `Qwen3MoeForCausalLM` write them, an expert at a time; or all of a layer's
experts in one tensor, as transformers 5 holds and may write them.
"""

from __future__ import annotations

from torch import nn

from services.engine.checkpoint import TensorSource
from services.engine.config import ModelConfig, MoEConfig
from services.engine.layers.gating import Gate
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import DelegatedMoE, MixtureOfExperts, SharedExpert, SparseLayer
from services.engine.models.llama import LlamaDecoder, dense_mlp, gated_mlp

__all__ = ["SparseLayerWeights", "sparse_decoder"]

_EXPERT_NAMES = {
    "mixtral": ("w1", "w3", "w2"),
    "qwen2_moe": ("gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ("gate_proj", "up_proj", "down_proj"),
}


def sparse_decoder(
    config: ModelConfig, weights: TensorSource, sparse_layer: SparseLayer | None = None
) -> LlamaDecoder:
    """With `sparse_layer`, gates and experts are left in the checkpoint."""

    def make_mlp(config: ModelConfig, weights: TensorSource, layer: int) -> nn.Module:
        if config.moe is None or layer not in config.moe.layers:
            return dense_mlp(config, weights, layer)
        parts = SparseLayerWeights(config, config.moe, weights, layer)
        if sparse_layer is None:
            return parts.mixture()
        parts.skip()
        return DelegatedMoE(sparse_layer, layer)

    return LlamaDecoder(config, weights, make_mlp)


class SparseLayerWeights:
    """Takes the parts of one sparse layer, each alone, from a checkpoint."""

    def __init__(
        self, config: ModelConfig, moe: MoEConfig, weights: TensorSource, layer: int
    ) -> None:
        self._config, self._moe, self._weights = config, moe, weights
        prefix = f"model.layers.{layer}."
        self._is_stacked = f"{prefix}mlp.experts.gate_up_proj" in weights
        if config.family == "mixtral" and not self._is_stacked:
            self._prefix = f"{prefix}block_sparse_moe."
        else:
            self._prefix = f"{prefix}mlp."

    @property
    def num_experts(self) -> int:
        return self._moe.gating.num_experts

    def mixture(self) -> MixtureOfExperts:
        experts = [self.expert(expert) for expert in range(self.num_experts)]
        return MixtureOfExperts(self.gate(), experts, self.shared_expert())

    def gate(self) -> Gate:
        shape = (self.num_experts, self._config.hidden_size)
        router = self._weights.take(f"{self._prefix}gate.weight", shape)
        return Gate(Linear(router), self._moe.gating)

    def expert(self, expert: int) -> GatedMLP:
        inner, hidden = self._moe.intermediate_size, self._config.hidden_size
        if self._is_stacked:
            gate_up_name, down_name = self._stacked_names()
            shape = (self.num_experts, 2 * inner, hidden)
            gate_up = self._weights.take_entry(gate_up_name, expert, shape)
            shape = (self.num_experts, hidden, inner)
            down = self._weights.take_entry(down_name, expert, shape)
        else:
            *gate_up_names, down_name = self._names(expert)
            gate_up = self._weights.take_fused(gate_up_names, [(inner, hidden)] * 2)
            down = self._weights.take(down_name, (hidden, inner))
        return GatedMLP(Linear(gate_up), Linear(down), self._config.activation)

    def shared_expert(self) -> SharedExpert | None:
        inner = self._moe.shared_intermediate_size
        if inner is None:
            return None
        gate = self._weights.take(
            f"{self._prefix}shared_expert_gate.weight", (1, self._config.hidden_size)
        )
        mlp = gated_mlp(self._config, self._weights, f"{self._prefix}shared_expert.", inner)
        return SharedExpert(mlp, Linear(gate))

    def skip(self) -> None:
        """Leaves all parts where they are; a checkpoint without them is as good."""
        names = [f"{self._prefix}gate.weight"]
        if self._is_stacked:
            names += self._stacked_names()
        else:
            for expert in range(self.num_experts):
                names += self._names(expert)
        if self._moe.shared_intermediate_size is not None:
            parts = ("_gate", ".gate_proj", ".up_proj", ".down_proj")
            names += [f"{self._prefix}shared_expert{part}.weight" for part in parts]
        self._weights.skip(names)

    def _names(self, expert: int) -> list[str]:
        """Of the expert's gate, up and down projection."""
        names = _EXPERT_NAMES[self._config.family]
        return [f"{self._prefix}experts.{expert}.{name}.weight" for name in names]

    def _stacked_names(self) -> list[str]:
        return [f"{self._prefix}experts.{name}" for name in ("gate_up_proj", "down_proj")]
