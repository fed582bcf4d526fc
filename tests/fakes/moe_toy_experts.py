"""Experts that are arithmetic: the output of a row says which expert of which layer made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from services.moe.expert_key import ExpertKey
from services.moe.router.exchange import ExpertRows

__all__ = ["expected_output", "load_toys", "rows_for"]

HIDDEN_SIZE = 4


def load_toys(keys: Iterable[ExpertKey]) -> dict[int, dict[int, Any]]:
    """As `services.engine.expert_weights.load_experts`."""
    found: dict[int, dict[int, Callable[[Tensor], Tensor]]] = {}
    for key in keys:
        found.setdefault(key.layer, {})[key.expert] = partial(_toy, key)
    return found


def _toy(key: ExpertKey, rows: Tensor) -> Tensor:
    return rows * (key.expert + 2) + key.layer


def rows_for(layer: int, counts: dict[int, int], seed: int = 0) -> ExpertRows:
    """So many rows for each expert; every row is a token of its own."""
    num_rows = sum(counts.values())
    hidden = torch.randn(num_rows, HIDDEN_SIZE, generator=torch.Generator().manual_seed(seed))
    starts, stops, start = [], [], 0
    for count in counts.values():
        starts.append(start)
        start += count
        stops.append(start)
    return ExpertRows(layer, hidden, torch.arange(num_rows), list(counts), starts, stops)


def expected_output(work: ExpertRows) -> Tensor:
    """[num_rows, hidden_size]"""
    out = torch.zeros(work.num_rows, HIDDEN_SIZE)
    for expert, start, stop in zip(work.expert_ids, work.starts, work.stops, strict=True):
        rows = work.hidden[work.token_ids[start:stop]]
        out[start:stop] = _toy(ExpertKey(work.layer, expert), rows)
    return out
