"""What becomes of tokens that an expert has no room for: Lepikhin et al. 2020 (GShard,
arXiv:2006.16668), section 2.2.

An expert takes at most `ceil(factor * T * k / E)` rows of a batch: of the tokens whose first choice
it is, in their order, then of those whose second choice it is, and so on (Algorithm 1). A slot
beyond that is dropped, which leaves its part out of the token's sum, or goes to the token's next
best expert that has room and that it does not have already. There it gets the weight that this
expert's score is worth: the slot's own weight times the ratio of the two scores. "Best" is by the
logits: of the gates that this router loads none has a correction bias or groups of experts.

Pure computation on tensors; no loop over tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from services.engine.config import GateScores
from services.moe.router.gates import Routed

__all__ = ["Capacity", "Fitted"]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Where tokens go once everybody has room. A slot that is not `kept` has the weight 0."""

    weights: Tensor  # float32 [T, k]
    expert_ids: Tensor  # int64 [T, k]
    kept: Tensor  # bool [T, k]


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much an expert takes of a batch, over its even share, and what becomes of the rest."""

    factor: float
    policy: Literal["drop", "reroute"]
    scores: GateScores

    @torch.inference_mode()
    def fit(self, routed: Routed) -> Fitted:
        """The same routing within the experts' room."""
        num_experts = routed.logits.shape[1]
        room = math.ceil(self.factor * routed.expert_ids.numel() / num_experts)
        kept = _within(routed.expert_ids, routed.expert_ids.new_full((num_experts,), room))
        fitted = Fitted(routed.weights.masked_fill(~kept, 0.0), routed.expert_ids, kept)
        if self.policy == "drop" or bool(kept.all()):
            return fitted
        return self._reroute(routed, fitted, room)

    def _reroute(self, routed: Routed, fitted: Fitted, room: int) -> Fitted:
        logits, chosen = routed.logits, fitted.expert_ids
        log_scores = logits if self.scores == "softmax" else torch.nn.functional.logsigmoid(logits)
        weights, ids, kept = fitted.weights.clone(), chosen.clone(), fitted.kept.clone()
        ranking = logits.argsort(dim=-1, descending=True, stable=True)  # [T, E]
        taken = torch.zeros_like(logits, dtype=torch.bool)  # [T, E]: the token has it already
        taken.scatter_(1, chosen, True)
        for candidate in ranking.unbind(1):  # [T], the tokens' best, then their second best, ...
            slot = (~kept).int().argmax(dim=1, keepdim=True)  # [T, 1]: the first without a place
            wanted = ~kept.gather(1, slot).squeeze(1)
            wanted &= ~taken.gather(1, candidate.unsqueeze(1)).squeeze(1)
            used = ids[kept].bincount(minlength=logits.shape[1])
            # Who does not want is counted as an expert that there is none of.
            asked = torch.where(wanted, candidate, logits.shape[1]).unsqueeze(1)
            has_room = _within(asked, torch.cat(((room - used).clamp(min=0), used.new_zeros(1))))
            rows = has_room.squeeze(1).nonzero().squeeze(1)
            if not len(rows):
                continue
            slots, experts = slot[rows, 0], candidate[rows]
            ratio = log_scores[rows, experts] - log_scores[rows, chosen[rows, slots]]
            weights[rows, slots] = routed.weights[rows, slots] * ratio.exp()
            ids[rows, slots] = experts
            kept[rows, slots] = True
            taken[rows, experts] = True
        return Fitted(weights, ids, kept)


def _within(expert_ids: Tensor, room: Tensor) -> Tensor:
    """ids [T, k], room [E] -> bool [T, k]: whether a slot is among the first of its expert that
    fit, all tokens' first slots before their second.
    """
    by_slot = expert_ids.T  # [k, T]
    flat, order = by_slot.flatten().sort(stable=True)
    counts = flat.bincount(minlength=len(room))
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(flat), device=flat.device) - starts[flat]  # within its expert
    fits = torch.empty_like(flat, dtype=torch.bool)
    fits[order] = rank < room[flat]
    return fits.view_as(by_slot).T
