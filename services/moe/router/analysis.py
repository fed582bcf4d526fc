"""What the routing of a text says: losses of its balance, shares, specialisation by token class.

Pure computation on tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.engine.config import GateScores
from services.engine.layers.router_losses import load_balancing_loss, z_loss
from services.moe.router.gates import Routed
from services.moe.router.token_classes import TOKEN_CLASSES

__all__ = ["ClassShares", "LayerStatistics", "TextAnalysis", "analyze"]


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """One layer over the tokens of a text."""

    layer: int
    routed: Routed
    load_balancing_loss: float  # 1 is even
    z_loss: float
    shares: list[float]  # of each expert, of tokens times k


@dataclass(frozen=True, slots=True)
class ClassShares:
    """How the tokens of one class are spread over a layer's experts."""

    token_class: str
    num_tokens: int
    layer: int
    shares: list[float]


@dataclass(frozen=True, slots=True, eq=False)
class TextAnalysis:
    """Of all sparse layers, in their order; token classes that the text has, in theirs."""

    layers: list[LayerStatistics]
    classes: list[ClassShares]


def analyze(
    routing: Mapping[int, Routed], classes: Sequence[str], scores: GateScores
) -> TextAnalysis:
    """`routing`: of each sparse layer; `classes`: of each token, one of `TOKEN_CLASSES`."""
    layers, spread = [], []
    members = {name: torch.tensor([found == name for found in classes]) for name in TOKEN_CLASSES}
    for layer, routed in sorted(routing.items()):
        layers.append(
            LayerStatistics(
                layer=layer,
                routed=routed,
                load_balancing_loss=float(
                    load_balancing_loss(routed.logits, routed.expert_ids, scores)
                ),
                z_loss=float(z_loss(routed.logits)),
                shares=_shares(routed.expert_ids, routed.logits.shape[1]),
            )
        )
        for name, of_class in members.items():
            if bool(of_class.any()):
                ids = routed.expert_ids.cpu()[of_class]
                shares = _shares(ids, routed.logits.shape[1])
                spread.append(ClassShares(name, len(ids), layer, shares))
    return TextAnalysis(layers, spread)


def _shares(expert_ids: Tensor, num_experts: int) -> list[float]:
    counts = expert_ids.flatten().bincount(minlength=num_experts)
    shares: list[float] = (counts / expert_ids.numel()).tolist()
    return shares
