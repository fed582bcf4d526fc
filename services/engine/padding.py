"""Few numbers of rows for compiled kernels: on CPUs, rows of zeros are added up to one of them.

oneDNN, which torch's products and attention in bfloat16 run on, compiles kernels for each size that
it meets and keeps them for good: that takes longer than to use them, and a process that meets ever
new lengths would never stop growing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["pad_rows", "padded"]

# 16 rows are what the hardware's tiles hold; where there are many, more of zeros cost little.
_FEW_ROWS, _MOST_BY_FEW = 16, 512
_MANY_ROWS = 64


def padded(num_rows: int) -> int:
    """The least of the few numbers that is not below `num_rows`."""
    multiple = _FEW_ROWS if num_rows <= _MOST_BY_FEW else _MANY_ROWS
    return num_rows + -num_rows % multiple


def pad_rows(x: Tensor, num_rows: int) -> Tensor:
    """[T, ...] -> [num_rows, ...], the added ones 0; `x` itself where it has as many."""
    missing = num_rows - x.shape[0]
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else x
