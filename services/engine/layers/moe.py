"""A sparse mixture of experts: a gate that routes, and the experts it routes to.

Tokens are grouped by expert in one sort; each expert that is hit multiplies its rows once; the
results go back to their tokens, weighted. There is no loop over tokens and none over idle experts.

    x [T, hidden] ─ Gate ─ group_by_expert ─> rows [N, hidden] ─ expert_ffn ─ combine ─> [T, hidden]
                                              N = T · k, sorted by expert

The parts are functions, so that a layer whose experts live in other processes computes by the same
code, and to the same bits where `Linear` gives a row the same whatever is around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from services.engine.cpu_kernels import rows as row_kernels
from services.engine.errors import EngineError
from services.engine.layers.gating import Gate
from services.engine.layers.linear import Linear
from services.engine.layers.mlp import GatedMLP

__all__ = [
    "DelegatedMoE",
    "Groups",
    "MixtureOfExperts",
    "SharedExpert",
    "SparseLayer",
    "combine",
    "expert_ffn",
    "group_by_expert",
]


class SparseLayer(Protocol):
    """Computes the sparse layers of a decoder in place of weights of its own."""

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """[T, hidden] -> [T, hidden] of that dtype: gate, experts, combination, shared expert.

        Called in the thread that steps the engine, under `inference_mode`. All requests wait for
        it, so it bounds its own time. The result is the caller's. Raises
        `ExpertsUnavailableError` when it cannot be computed now.
        """
        ...


class Groups(NamedTuple):
    """The rows of a layer, one per token and slot, sorted by expert.

    expert_ids   [      2      |  5  |     7     ]    those that are hit, ascending
    counts       [      3      |  1  |     2     ]    rows of each
    token_ids    [  0 , 1 , 2  |  0  |   1 , 2   ]    whose copy a row is
    positions    [[0, 3], [1, 4], [2, 5]]             the row of each token's slots
    """

    expert_ids: list[int]
    counts: list[int]
    token_ids: Tensor  # int64 [N]
    positions: Tensor  # int64 [T, k]


def group_by_expert(expert_ids: Tensor) -> Groups:
    """int64 [T, k] -> its T · k rows by expert; those of one expert in the order of tokens."""
    return _group_in_memory(expert_ids) if expert_ids.device.type == "cpu" else _group(expert_ids)


def _group(expert_ids: Tensor) -> Groups:
    k = expert_ids.shape[1]
    sorted_ids, order = expert_ids.flatten().sort(stable=True)  # entry i belongs to token i // k
    hit, counts = torch.unique_consecutive(sorted_ids, return_counts=True)
    positions = torch.empty_like(order)
    positions[order] = torch.arange(len(order), device=order.device)
    return Groups(hit.tolist(), counts.tolist(), order // k, positions.view_as(expert_ids))


def _group_in_memory(expert_ids: Tensor) -> Groups:
    """The same by numpy, which sorts short integers by radix: 2 to 5 times as fast."""
    k = expert_ids.shape[1]
    ids = expert_ids.numpy().ravel()
    order = ids.astype(np.uint16).argsort(kind="stable")  # entry i belongs to token i // k
    counts = np.bincount(ids)
    hit = counts.nonzero()[0]
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return Groups(
        hit.tolist(),
        counts[hit].tolist(),
        torch.from_numpy(order // k),
        torch.from_numpy(positions.reshape(-1, k)),
    )


def expert_ffn(
    experts: Mapping[int, GatedMLP], rows: Tensor, expert_ids: Sequence[int], counts: Sequence[int]
) -> Tensor:
    """rows [N, hidden], the first counts[0] of them for expert_ids[0], ... -> [N, hidden]"""
    outputs = [
        experts[expert_id](group)
        for expert_id, group in zip(expert_ids, torch.split(rows, list(counts)), strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def combine(rows: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
    """Row t of the result is Σⱼ weights[t, j] · rows[positions[t, j]].

    rows [N, hidden], positions int64 [T, k], weights float32 [T, k] -> [T, hidden]. Terms are added
    in float32 in the order of slots, and the sum is rounded to the rows' dtype once.
    """
    if row_kernels.supported(rows):
        return row_kernels.weighted_sum(rows, positions, weights).to(rows.dtype)
    total = rows.new_zeros(len(positions), rows.shape[-1], dtype=torch.float32)
    for position, weight in zip(positions.unbind(1), weights.unbind(1), strict=True):  # slots
        total.addcmul_(rows.index_select(0, position).float(), weight.unsqueeze(1))
    return total.to(rows.dtype)


class SharedExpert(nn.Module):
    """An expert that all tokens go to, by the weight that a gate of its own gives (Qwen2-MoE)."""

    def __init__(self, expert: GatedMLP, gate: Linear) -> None:
        super().__init__()
        self.expert = expert
        self.gate = gate  # hidden -> 1

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] -> [T, hidden]"""
        hidden: Tensor = self.gate(x).sigmoid() * self.expert(x)
        return hidden


class MixtureOfExperts(nn.Module):
    """A layer in the place of an MLP, with all of its experts here."""

    def __init__(
        self, gate: Gate, experts: Sequence[GatedMLP], shared: SharedExpert | None = None
    ) -> None:
        super().__init__()
        self.gate = gate
        self.experts = nn.ModuleList(experts)
        self.shared = shared
        self._by_id = dict(enumerate(experts))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, hidden] -> [T, hidden]; plus `residual`, where given"""
        weights, expert_ids = self.gate(x)
        groups = group_by_expert(expert_ids)
        rows = x.index_select(0, groups.token_ids)  # [T * k, hidden]
        outputs = expert_ffn(self._by_id, rows, groups.expert_ids, groups.counts)
        hidden = combine(outputs, groups.positions, weights)
        if self.shared is not None:
            hidden = hidden + self.shared(x)
        return hidden if residual is None else residual + hidden


class DelegatedMoE(nn.Module):
    """A layer in the place of an MLP, computed by a `SparseLayer`."""

    def __init__(self, sparse_layer: SparseLayer, layer: int) -> None:
        super().__init__()
        self._sparse_layer = sparse_layer
        self._layer = layer

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, hidden] -> [T, hidden]; plus `residual`, where given"""
        hidden = self._sparse_layer(self._layer, x)
        if hidden.shape != x.shape or hidden.dtype is not x.dtype:  # it would broadcast
            raise EngineError(
                f"sparse layer {self._layer}: expected {x.dtype} {tuple(x.shape)}, "
                f"got {hidden.dtype} {tuple(hidden.shape)}"
            )
        return hidden if residual is None else residual + hidden
