"""The experts that a shard holds: taken up from the model's folder, computed, given up.

What is held is an immutable table that loading and dropping replace: a computation that began with
the old one finishes with it. Knows nothing of calls, threads or serving.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from services.engine.layers.mlp import GatedMLP
from services.engine.layers.moe import expert_ffn
from services.moe.expert_key import ExpertKey
from services.moe.shard_work import ShardWork
from services.runtime.errors import Overloaded, ResourceNotFound

__all__ = ["ExpertLoader", "ExpertStore"]

_CPU = torch.device("cpu")

Experts = Mapping[int, GatedMLP]  # of one layer, by their number
ExpertLoader = Callable[[Iterable[ExpertKey]], Mapping[int, Experts]]


class ExpertStore:
    """Thread-safe. Memory is bounded by `max_bytes`, in whole experts."""

    def __init__(
        self,
        load: ExpertLoader,
        bytes_per_expert: int,
        max_bytes: int,
        device: torch.device = _CPU,
    ) -> None:
        self._load = load
        self._device = device
        self._bytes_per_expert = bytes_per_expert
        self._max_bytes = max_bytes
        self._changing = threading.Lock()
        self._layers: Mapping[int, Experts] = {}

    @property
    def keys(self) -> list[ExpertKey]:
        """What is held now."""
        layers = self._layers
        return [ExpertKey(layer, e) for layer in sorted(layers) for e in sorted(layers[layer])]

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self._layers.values())) * self._bytes_per_expert

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    def load(self, keys: Iterable[ExpertKey]) -> None:
        """Takes up those of `keys` that it does not hold. All, or none and an error.

        Raises `Overloaded` where they do not fit, `CheckpointError` where they cannot be read.
        """
        with self._changing:
            new = sorted(set(keys).difference(self.keys))
            if not new:
                return
            num_bytes = self.num_bytes + len(new) * self._bytes_per_expert
            if num_bytes > self._max_bytes:
                raise Overloaded(
                    f"experts: {len(new)} more would be {num_bytes} bytes; "
                    f"at most {self._max_bytes} may be held"
                )
            loaded = self._load(new)
            layers = {layer: dict(experts) for layer, experts in self._layers.items()}
            for layer, experts in loaded.items():
                layers.setdefault(layer, {}).update(experts)
            self._layers = layers

    def drop(self, keys: Iterable[ExpertKey]) -> None:
        """Gives experts up; those it does not hold are fine."""
        with self._changing:
            gone = set(keys)
            kept = {
                layer: {e: module for e, module in experts.items() if (layer, e) not in gone}
                for layer, experts in self._layers.items()
            }
            self._layers = {layer: experts for layer, experts in kept.items() if experts}

    def num_multiplications(self, work: ShardWork) -> int:
        """What computing it takes: each row meets every weight of its expert once."""
        return len(work.rows) * self._bytes_per_expert // work.rows.dtype.itemsize

    def check_held(self, work: ShardWork) -> None:
        """Raises `ResourceNotFound` naming an expert of the work that is not held."""
        self._experts_of(work)

    @torch.inference_mode()
    def compute(self, work: ShardWork) -> Tensor:
        """[sum of counts, hidden_size]: each row through its expert. Raises `ResourceNotFound`."""
        experts = self._experts_of(work)
        rows = work.rows.to(self._device)
        return expert_ffn(experts, rows, work.expert_ids, work.counts)

    def _experts_of(self, work: ShardWork) -> Experts:
        experts = self._layers.get(work.layer, {})
        for expert in work.expert_ids:
            if expert not in experts:
                key = ExpertKey(work.layer, expert)
                raise ResourceNotFound(
                    f"work.expert_ids: {key} is not held by this shard", field="work.expert_ids"
                )
        return experts
