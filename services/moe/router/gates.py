"""Where the tokens of a layer go: its gate, and the numbers that say how sure the gate is.

Pure computation on tensors. Knows nothing of shards, calls or clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.engine.config import GateScores
from services.engine.layers.gating import Gate
from services.engine.layers.moe import SharedExpert
from services.engine.layers.router_losses import router_entropy

__all__ = ["LayerGates", "Routed"]


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """A layer's choice for T tokens."""

    weights: Tensor  # float32 [T, k]
    expert_ids: Tensor  # int64 [T, k]
    logits: Tensor  # float32 [T, E]
    scores: GateScores  # how they become probabilities

    @property
    def entropies(self) -> Tensor:
        """float32 [T], nats, of the distribution over all experts; computed anew each time."""
        return router_entropy(self.logits, self.scores)

    def split(self, sizes: Sequence[int]) -> list[Routed]:
        """That of the first so many tokens, of the next, and so on."""
        if len(sizes) == 1:
            return [self]
        weights, expert_ids, logits = (
            torch.split(numbers, list(sizes))
            for numbers in (self.weights, self.expert_ids, self.logits)
        )
        parts = zip(weights, expert_ids, logits, strict=True)
        return [Routed(w, ids, of_all, self.scores) for w, ids, of_all in parts]


class LayerGates:
    """The gates of a model's sparse layers, and the experts that all tokens go to."""

    def __init__(self, gates: Mapping[int, Gate], shared: Mapping[int, SharedExpert]) -> None:
        self._gates = gates
        self._shared = shared

    @torch.inference_mode()
    def route(self, layer: int, hidden: Tensor) -> Routed:
        """hidden [T, hidden_size] of a sparse layer"""
        gate = self._gates[layer]
        logits = gate.logits(hidden)
        weights, expert_ids = gate.choose(logits)
        return Routed(weights, expert_ids, logits, gate.config.scores)

    @torch.inference_mode()
    def add_shared(self, layer: int, hidden: Tensor, output: Tensor) -> Tensor:
        """The layer's output [T, hidden_size] with its shared expert's, where it has one."""
        shared = self._shared.get(layer)
        return output if shared is None else output + shared(hidden)
