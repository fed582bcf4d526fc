"""Kernels that give a row of the batch the same numbers whatever is beside it, on a CPU.

Measured: of a UNet's operations only two kinds round differently for batches of different sizes.
Convolutions, because torch chooses between its own kernel and oneDNN's by the size of the batch:
here oneDNN's is called directly, with weights packed for it once, which is also faster for few
rows. And the small products of the timestep's embedding, one row for each of the batch: here they
are computed on a fixed number of rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["make_batch_invariant"]

_NUM_ROWS = 32


def make_batch_invariant(module: nn.Module) -> None:
    """Replaces the convolutions and linear layers of a module on a CPU, in place. It is then for
    computing only. In a precision that oneDNN does not compute in here, nothing is replaced."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            if _can_pack(child):
                setattr(module, name, _PackedConv2d(child))
        elif isinstance(child, nn.Linear):
            setattr(module, name, _FixedRowsLinear(child))
        else:
            make_batch_invariant(child)


class _PackedConv2d(nn.Module):
    """oneDNN's convolution with its weights in oneDNN's own layout."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._geometry = (
            [int(size) for size in conv.padding],
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
        )
        # The stub knows one argument of six.
        self._weight: torch.Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            conv.weight.detach().to_mkldnn(), *self._geometry, None
        )
        self.bias = conv.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[R, C, h, w]` to `[R, C', h', w']`."""
        convolved: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self.bias, *self._geometry, "none", [], ""
        )
        return convolved


class _FixedRowsLinear(nn.Module):
    """A linear layer whose product of one row for each of the batch has a fixed number of rows.

    Products of many rows each, those of pixels and words, are as they were.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., in]` to `[..., out]`."""
        if x.dim() != 2:
            return F.linear(x, self.weight, self.bias)
        parts = [
            F.linear(F.pad(part, (0, 0, 0, _NUM_ROWS - len(part))), self.weight, self.bias)
            for part in torch.split(x, _NUM_ROWS)
        ]
        return torch.cat(parts)[: len(x)]


def _can_pack(conv: nn.Conv2d) -> bool:
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    dtype = conv.weight.dtype
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32 and torch._C._has_mkldnn
