"""A sparse mixture of experts, computed locally: a gate that routes and the experts it routes to.

Jiang et al. 2024 (arXiv:2401.04088), section 2.1. Tokens are grouped by expert, so that each
expert that is hit runs once over all of its tokens; there is no loop over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP

__all__ = ["Experts", "MixtureOfExperts", "TopKGate"]


class TopKGate(nn.Module):
    """Chooses each token's experts: softmax over all, the best k, renormalised to sum to 1."""

    def __init__(self, router: Linear, num_experts_per_token: int) -> None:
        super().__init__()
        self.router = router
        self.num_experts_per_token = num_experts_per_token

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, hidden] -> float32 weights [T, k], int64 expert ids [T, k]"""
        probabilities = self.router(x).float().softmax(dim=-1)  # [T, num_experts]
        weights, expert_ids = probabilities.topk(self.num_experts_per_token, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), expert_ids


class Experts(nn.Module):
    """The experts themselves, each a gated MLP."""

    def __init__(self, experts: Sequence[GatedMLP]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, x: Tensor, weights: Tensor, expert_ids: Tensor) -> Tensor:
        """x [T, hidden], weights and expert_ids [T, k] -> [T, hidden], the weighted sum."""
        num_tokens, k = expert_ids.shape
        flat_ids = expert_ids.flatten()  # [T * k]; entry i belongs to token i // k
        order = flat_ids.argsort(stable=True)  # [T * k], grouped by expert
        counts = flat_ids.bincount(minlength=len(self.experts)).tolist()
        groups = torch.split(x.index_select(0, order // k), counts)
        outputs = [
            expert(group)
            for expert, group in zip(self.experts, groups, strict=True)
            if group.shape[0]
        ]
        by_slot = torch.empty(num_tokens * k, x.shape[-1], dtype=x.dtype, device=x.device)
        by_slot[order] = torch.cat(outputs)
        # Weights are float32, and so is the sum; it is rounded to x's dtype once.
        scaled = by_slot.view(num_tokens, k, -1) * weights.unsqueeze(-1)  # [T, k, hidden]
        return scaled.sum(dim=1).to(x.dtype)


class MixtureOfExperts(nn.Module):
    """A layer in the place of an MLP: gate, then experts."""

    def __init__(self, gate: TopKGate, experts: Experts) -> None:
        super().__init__()
        self.gate = gate
        self.experts = experts

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, hidden] -> [T, hidden]; plus `residual`, where given"""
        weights, expert_ids = self.gate(x)
        hidden: Tensor = self.experts(x, weights, expert_ids)
        return hidden if residual is None else residual + hidden
