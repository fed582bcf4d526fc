"""A mixture of experts from a dense decoder that is trained already.

Sparse upcycling (Komatsuzaki et al. 2022, arXiv:2212.05055): everything but the MLPs is taken over,
and each expert begins as a part of the MLP in its place. Here a part is half of the MLP's neurons,
drawn at random, so that experts differ from the first step on; what they add is doubled, so that
two of them, each with half of the weight, come to the whole MLP on average.
"""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM, MixtralForCausalLM

__all__ = ["upcycle"]


@torch.no_grad()
def upcycle(dense: LlamaForCausalLM, sparse: MixtralForCausalLM, seed: int) -> None:
    """Fills `sparse` from `dense`, in place; its gates stay random."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: tensor for name, tensor in dense.state_dict().items() if ".mlp." not in name}
    left = sparse.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    for layer, dense_layer in zip(sparse.model.layers, dense.model.layers, strict=True):
        mlp, experts = dense_layer.mlp, layer.mlp.experts
        num_experts, _, width = experts.down_proj.shape  # [experts, hidden, width]
        for expert in range(num_experts):
            neurons = torch.randperm(mlp.gate_proj.out_features, generator=generator)[:width]
            gate_up = [mlp.gate_proj.weight[neurons], mlp.up_proj.weight[neurons]]
            experts.gate_up_proj[expert] = torch.cat(gate_up)  # [2 * width, hidden]
            scale = mlp.gate_proj.out_features / width
            experts.down_proj[expert] = scale * mlp.down_proj.weight[:, neurons]
