"""Linear layers: the one place where a weight matrix meets activations.

A layer is created from a weight that is loaded already, so that it may keep the weight in
whatever form is fastest to multiply by.

On CPUs that is oneDNN's own blocked layout (AMX and AVX-512 where there are any), made once at
load: a product with a few rows is bound by how fast the weight is read, and torch's `F.linear`
reads a plain matrix 1.3 to 1.7 times more slowly in bfloat16. In float32 it also makes a row's
result the same to the bit whatever the number of rows around it, but for a single row of 2048 or
more inputs; in bfloat16 oneDNN sums in another order at some numbers of rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.engine.padding import pad_rows, padded

__all__ = ["Linear", "row_counts"]


# Batches that only decode are computed as they are.
_MOST_UNPADDED_ROWS = 32


def row_counts(most: int) -> list[int]:
    """The numbers of rows up to `most` that kernels are compiled for, ascending."""
    counts = {_computed_rows(num_rows) for num_rows in range(1, most + 1)}
    return sorted(count for count in counts if count <= most)


class Linear(nn.Module):
    """y = x Wᵀ + b, with weight [out_features, in_features] and bias [out_features] or None.

    A packed weight is a copy: one that is shared (tied embeddings) is then held twice.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._packed = _pack(weight)
        if self._packed is None:
            self.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[T, in_features] -> [T, out_features]; plus `residual` of that shape, where given"""
        out: Tensor
        if self._packed is None:
            out = F.linear(x, self.weight, self.bias)
            return out if residual is None else residual + out
        num_rows = x.shape[0]
        computed = _computed_rows(num_rows)
        x = pad_rows(x, computed)
        if residual is None:
            out = torch.ops.mkldnn._linear_pointwise.default(
                x, self._packed, self.bias, "none", [], ""
            )
        else:  # added before the sum is rounded to the dtype
            out = torch.ops.mkldnn._linear_pointwise.binary(
                x, pad_rows(residual, computed), self._packed, self.bias, "add"
            )
        return out[:num_rows]


def _computed_rows(num_rows: int) -> int:
    return num_rows if num_rows <= _MOST_UNPADDED_ROWS else padded(num_rows)


def _pack(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's layout; None where this device or dtype has none."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    if weight.dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed
