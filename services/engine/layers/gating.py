"""Which experts a token goes to, and how much each counts. Knows router logits, not experts.

softmax over the chosen   Mixtral (Jiang et al. 2024, arXiv:2401.04088, section 2.1), Qwen-MoE,
                          GShard (Lepikhin et al. 2020, arXiv:2006.16668, Algorithm 1)
softmax over all          Switch (Fedus et al. 2021, arXiv:2101.03961, eq. 1-2), Qwen-MoE
sigmoid, with groups      DeepSeek-V3 (arXiv:2412.19437, eq. 12-16)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from services.engine.config import GatingConfig
from services.engine.errors import ConfigError
from services.engine.layers.linear import Linear

__all__ = ["Gate", "Routing", "choose_experts"]


class Routing(NamedTuple):
    """Where tokens go; slot j of token t is its j-th best expert."""

    weights: Tensor  # float32 [T, k]
    expert_ids: Tensor  # int64 [T, k]


class Gate(nn.Module):
    """The router of one layer: a linear map to a logit per expert, and the choice by them.

    `correction_bias`: float32 [E], where the config has one, and only there: else `ConfigError`.
    """

    correction_bias: Tensor | None

    def __init__(
        self, router: Linear, config: GatingConfig, correction_bias: Tensor | None = None
    ) -> None:
        super().__init__()
        if config.correction_bias is not (correction_bias is not None):
            raise ConfigError("correction_bias", "expected a tensor where it is set, only there")
        self.router = router
        self.config = config
        self.register_buffer("correction_bias", correction_bias)

    def forward(self, x: Tensor) -> Routing:
        """[T, hidden] -> weights and expert ids of its tokens"""
        return self.choose(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """[T, hidden] -> float32 [T, E]"""
        logits: Tensor = self.router(x)
        return logits.float()

    def choose(self, logits: Tensor) -> Routing:
        return choose_experts(logits, self.config, self.correction_bias)


def choose_experts(
    logits: Tensor, config: GatingConfig, correction_bias: Tensor | None = None
) -> Routing:
    """float32 logits [T, E], bias [E] -> the routing of these tokens.

    A token's choice depends on its own logits alone.
    """
    k, grouped = config.num_experts_per_token, config.num_groups > 1
    if (
        config.scores == "softmax"
        and config.renormalise
        and correction_bias is None
        and not grouped
    ):
        # A softmax over all, renormalised over the chosen, is the softmax over the chosen.
        best, expert_ids = logits.topk(k, dim=-1)  # [T, k]
        return Routing(best.softmax(dim=-1) * config.scaling_factor, expert_ids)
    scores = logits.softmax(dim=-1) if config.scores == "softmax" else logits.sigmoid()  # [T, E]
    preference = scores if correction_bias is None else scores + correction_bias
    if grouped:
        preference = _keep_best_groups(preference, config)
    expert_ids = preference.topk(k, dim=-1).indices  # [T, k]
    weights = scores.gather(-1, expert_ids)
    if config.renormalise:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)  # sigmoids may all be 0
    return Routing(weights * config.scaling_factor, expert_ids)


def _keep_best_groups(preference: Tensor, config: GatingConfig) -> Tensor:
    """[T, E] with -inf for the experts of groups that are not among the token's best.

    A group is as good as its two best experts together.
    """
    groups = preference.view(len(preference), config.num_groups, -1)  # [T, groups, experts of each]
    best_two = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(dim=-1)  # [T, groups]
    kept = best_two.topk(config.num_groups_per_token, dim=-1).indices
    outside = torch.ones_like(best_two, dtype=torch.bool).scatter(-1, kept, False)
    return groups.masked_fill(outside.unsqueeze(-1), -float("inf")).flatten(-2)
