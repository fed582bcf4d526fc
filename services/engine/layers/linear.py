"""Linear layers: the one place where a weight matrix meets activations.

A layer is created from a weight that is loaded already, so that it may keep the weight in
whatever form is fastest to multiply by.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Linear"]


class Linear(nn.Module):
    """y = x Wᵀ + b, with weight [out_features, in_features] and bias [out_features] or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]"""
        return F.linear(x, self.weight, self.bias)
