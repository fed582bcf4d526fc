"""Position-wise feed-forward layers: the gated one of LLaMA and the plain one of GPT-2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn

from services.engine.cpu_kernels import rows
from services.engine.layers.linear import Linear

__all__ = ["ACTIVATIONS", "MLP", "GatedMLP"]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": partial(F.gelu, approximate="tanh"),
        "relu": F.relu,
    }
)


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)): SwiGLU when act is silu (Shazeer 2020, eq. 6)."""

    def __init__(self, gate_up: Linear, down: Linear, activation: str) -> None:
        super().__init__()
        self.gate_up = gate_up  # rows: gate, then up
        self.down = down
        self._act = ACTIVATIONS[activation]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, hidden] -> [T, hidden]; plus `residual`, where given"""
        gate_up = self.gate_up(x)  # [T, 2 * intermediate_size]
        if self._act is F.silu and rows.supported(gate_up):
            inner = rows.silu_mul(gate_up)
        else:
            gate, up = gate_up.chunk(2, dim=-1)  # [T, intermediate_size] each
            inner = self._act(gate).mul_(up)
        hidden: Tensor = self.down(inner, residual)
        return hidden


class MLP(nn.Module):
    """down(act(up(x)))"""

    def __init__(self, up: Linear, down: Linear, activation: str) -> None:
        super().__init__()
        self.up = up
        self.down = down
        self._act = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.down(self._act(self.up(x)))
        return hidden
