"""Which experts a mixture's tokens go to, counted while the engine answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from services.engine.layers.gating import Gate, Routing

__all__ = ["ExpertCounts", "shares_table", "write_shares"]

_FILE = "expert_shares.json"


class ExpertCounts:
    """Counts from now on what the gates of a decoder choose; empty without sparse layers."""

    def __init__(self, decoder: nn.Module) -> None:
        gates = [module for module in decoder.modules() if isinstance(module, Gate)]
        self._counts = [torch.zeros(gate.config.num_experts, dtype=torch.int64) for gate in gates]
        for gate, counts in zip(gates, self._counts, strict=True):
            gate.register_forward_hook(_counter(counts))

    @property
    def shares(self) -> list[list[float]]:
        """By layer and expert; those of a layer come to 1."""
        return [(counts / counts.sum()).tolist() for counts in self._counts]


def _counter(counts: torch.Tensor) -> Any:
    def count(_gate: nn.Module, _inputs: object, routing: Routing) -> None:
        counts.add_(torch.bincount(routing.expert_ids.flatten(), minlength=len(counts)))

    return count


def write_shares(folder: Path, shares: list[list[float]]) -> None:
    """Record them in the model folder."""
    rounded = [[round(share, 4) for share in layer] for layer in shares]
    (folder / _FILE).write_text(json.dumps(rounded) + "\n")


def shares_table(folder: Path) -> str:
    """The recorded shares as a Markdown table, in per cent; empty where there are none."""
    if not (folder / _FILE).exists():
        return ""
    shares = json.loads((folder / _FILE).read_text())
    numbers = range(len(shares[0]))
    lines = [
        "| Layer | " + " | ".join(f"expert {number}" for number in numbers) + " |",
        "|---" * (len(numbers) + 1) + "|",
    ]
    for layer, of_layer in enumerate(shares):
        lines.append(f"| {layer} | " + " | ".join(f"{100 * s:.1f}" for s in of_layer) + " |")
    return "\n".join(lines)
