"""How evenly and how decidedly a router routes, as functions of its logits.

Pure and differentiable: training adds them to its loss, analysis reports them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from services.engine.config import GateScores

__all__ = ["load_balancing_loss", "router_entropy", "z_loss"]


def router_entropy(logits: Tensor, scores: GateScores = "softmax") -> Tensor:
    """[T, E] -> [T], in nats: 0 where one expert has it all, log(E) where all are alike."""
    log_p = _log_probabilities(logits, scores)
    return -(log_p.exp() * log_p).sum(dim=-1)


def load_balancing_loss(
    logits: Tensor, expert_ids: Tensor, scores: GateScores = "softmax"
) -> Tensor:
    """logits [T, E] and the experts chosen by them [T, k] -> a scalar, 1 where load is even.

    E · Σᵢ fᵢ · Pᵢ, with fᵢ the share of the T · k slots that went to expert i and Pᵢ the mean
    probability that it was given (Fedus et al. 2021, arXiv:2101.03961, eq. 4-6, without the
    factor α; k = 1 there). Its gradient flows through Pᵢ.
    """
    num_experts = logits.shape[-1]
    shares = expert_ids.flatten().bincount(minlength=num_experts) / expert_ids.numel()  # [E]
    mean = _log_probabilities(logits, scores).exp().mean(dim=0)  # [E]
    return num_experts * (shares * mean).sum()


def z_loss(logits: Tensor) -> Tensor:
    """[T, E] -> a scalar: the mean of log²Σexp, which keeps logits small (Zoph et al. 2022,
    arXiv:2202.08906, eq. 5)."""
    return torch.logsumexp(logits.float(), dim=-1).square().mean()


def _log_probabilities(logits: Tensor, scores: GateScores) -> Tensor:
    """[T, E]; sigmoid scores are divided by their sum (DeepSeek-V3, arXiv:2412.19437, eq. 19)."""
    log_scores = logits.float() if scores == "softmax" else F.logsigmoid(logits.float())
    return log_scores.log_softmax(dim=-1)
