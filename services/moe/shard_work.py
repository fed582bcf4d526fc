"""Rows for experts of one layer: what a router asks of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ShardWork"]


@dataclass(frozen=True, slots=True, eq=False)
class ShardWork:
    """Rows [sum of counts, hidden_size] of one layer, grouped by expert in the order of the ids."""

    layer: int
    expert_ids: Sequence[int]
    counts: Sequence[int]
    rows: Tensor
