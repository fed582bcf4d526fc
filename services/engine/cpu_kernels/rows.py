"""Row-wise layers as one compiled operation each, in place of a chain of torch's.

With few tokens a step, a chain of small operations costs more in calls than in arithmetic: torch's
RMSNorm on a CPU is about ten of them. Callers ask `supported` first and keep their plain torch
form for the rest. Nothing is compiled or imported for it before the first call.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from services.engine.cpu_kernels.openmp import float_bits, launch

if TYPE_CHECKING:
    from services.engine.cpu_kernels.row_kernels import RowKernels

__all__ = ["rms_norm", "rotate_", "silu_mul", "supported", "weighted_sum"]


def supported(x: Tensor) -> bool:
    """Whether the functions here take this tensor's device and dtype."""
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last axis; x [..., width], rounded once."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    arguments = (
        x.numel() // width, width, x.data_ptr(), weight.data_ptr(), out.data_ptr(),
        float_bits(eps),
    )  # fmt: skip
    launch(_kernels(x.dtype).rms_norm, arguments, x.numel())
    return out


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) · up; gate_up [T, 2 * width], contiguous -> [T, width], rounded once."""
    num_rows, both = gate_up.shape
    out = torch.empty(num_rows, both // 2, dtype=gate_up.dtype)
    arguments = (num_rows, both // 2, gate_up.data_ptr(), out.data_ptr())
    launch(_kernels(gate_up.dtype).silu_mul, arguments, 4 * out.numel())
    return out


def weighted_sum(x: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
    """Σⱼ weights[t, j] · x[positions[t, j]], added in the order of j, in float32.

    x [N, width], positions int64 [T, k], weights float32 [T, k] -> [T, width]
    """
    x, positions, weights = x.contiguous(), positions.contiguous(), weights.contiguous()
    (num_tokens, k), width = positions.shape, x.shape[-1]
    out = torch.empty(num_tokens, width)
    arguments = (
        num_tokens, k, width, x.data_ptr(), positions.data_ptr(), weights.data_ptr(),
        out.data_ptr(),
    )  # fmt: skip
    launch(_kernels(x.dtype).weighted_sum, arguments, k * out.numel())
    return out


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x · cos + swap(x) · sin in place, where swap exchanges the halves of the last axis.

    x [T, num_heads, head_dim], tokens at any stride, heads dense; cos, sin [T, 1, head_dim],
    contiguous, the first half of sin negated.
    """
    num_tokens, num_heads, head_dim = x.shape
    arguments = (
        num_tokens, num_heads, head_dim // 2, x.data_ptr(), x.stride(0), cos.data_ptr(),
        sin.data_ptr(),
    )  # fmt: skip
    launch(_kernels(x.dtype).rotate, arguments, x.numel())
    return x


@cache
def _kernels(dtype: torch.dtype) -> RowKernels:
    from services.engine.cpu_kernels.row_kernels import row_kernels  # imports the compiler

    return row_kernels(dtype)
