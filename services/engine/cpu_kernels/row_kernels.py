"""The compiled side of `rows.py`: kernels over rows of any width, a token per work item."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray

from services.engine.cpu_kernels.primitives import (
    ELEMENT_TYPES,
    exp,
    float_of_bits,
    kernel,
    narrow,
    take_item,
    vector,
    widen,
)

__all__ = ["RowKernels", "row_kernels"]


@dataclass(frozen=True, slots=True)
class RowKernels:
    """Addresses of the compiled kernels for one dtype."""

    rms_norm: int
    silu_mul: int
    rotate: int
    weighted_sum: int
    owners: tuple[Any, ...]  # of the code that the addresses point to


@cache
def row_kernels(dtype: torch.dtype) -> RowKernels:
    element = ELEMENT_TYPES[dtype]
    makers = (_rms_norm_kernel, _silu_mul_kernel, _rotate_kernel, _weighted_sum_kernel)
    norm, silu_mul, rotate, weighted_sum = owners = tuple(make(element) for make in makers)
    return RowKernels(norm.address, silu_mul.address, rotate.address, weighted_sum.address, owners)


def _rms_norm_kernel(element: Any) -> Any:
    """Arguments: num_rows, width, x, weight, out, bits of eps. Rows are contiguous."""
    item_bytes = np.dtype(element).itemsize

    def rms_norm(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (7,))
        num_rows, width = args[1], args[2]
        weight, eps = vector(args[4], element, width), float_of_bits(np.int32(args[6]))
        while True:
            row = take_item(pointer)
            if row >= num_rows:
                return
            x = vector(args[3] + row * width * item_bytes, element, width)
            out = vector(args[5] + row * width * item_bytes, element, width)
            squares = np.float32(0)
            for d in range(width):
                squares += widen(x[d]) * widen(x[d])
            scale = np.float32(1) / np.sqrt(squares / np.float32(width) + eps)
            for d in range(width):
                out[d] = narrow(widen(x[d]) * scale * widen(weight[d]), x[d])

    return kernel(rms_norm)


def _silu_mul_kernel(element: Any) -> Any:
    """Arguments: num_rows, width, gate_up (rows of 2 * width: gate, then up), out."""
    item_bytes = np.dtype(element).itemsize

    def silu_mul(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (5,))
        num_rows, width = args[1], args[2]
        while True:
            row = take_item(pointer)
            if row >= num_rows:
                return
            gate = vector(args[3] + row * 2 * width * item_bytes, element, width)
            up = vector(args[3] + (row * 2 + 1) * width * item_bytes, element, width)
            out = vector(args[4] + row * width * item_bytes, element, width)
            for d in range(width):
                g = widen(gate[d])
                out[d] = narrow(g / (np.float32(1) + exp(-g)) * widen(up[d]), gate[d])

    return kernel(silu_mul)


def _rotate_kernel(element: Any) -> Any:
    """Arguments: num_tokens, num_heads, half of head_dim, x, elements from one token of x to the
    next, cos, sin (rows of head_dim, the first half of sin negated). Rotates x in place."""
    item_bytes = np.dtype(element).itemsize

    def rotate(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (8,))
        num_tokens, num_heads, half = args[1], args[2], args[3]
        half_bytes = half * item_bytes
        while True:
            t = take_item(pointer)
            if t >= num_tokens:
                return
            cos = vector(args[6] + 2 * t * half_bytes, element, half)
            sin = vector(args[7] + (2 * t + 1) * half_bytes, element, half)
            for h in range(num_heads):
                address = args[4] + t * args[5] * item_bytes + 2 * h * half_bytes
                first = vector(address, element, half)
                second = vector(address + half_bytes, element, half)
                for d in range(half):
                    a, b, c, s = widen(first[d]), widen(second[d]), widen(cos[d]), widen(sin[d])
                    first[d] = narrow(a * c - b * s, first[d])
                    second[d] = narrow(b * c + a * s, first[d])

    return kernel(rotate)


def _weighted_sum_kernel(element: Any) -> Any:
    """Arguments: num_tokens, k, width, x (rows of width), positions (rows of k), weights (rows of
    k, float32), out (rows of width, float32)."""
    item_bytes = np.dtype(element).itemsize

    def weighted_sum(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (8,))
        num_tokens, k, width = args[1], args[2], args[3]
        while True:
            t = take_item(pointer)
            if t >= num_tokens:
                return
            positions = vector(args[5] + t * k * 8, np.int64, k)
            weights = vector(args[6] + t * k * 4, np.float32, k)
            out = vector(args[7] + t * width * 4, np.float32, width)
            for j in range(k):
                weight = weights[j]
                x = vector(args[4] + positions[j] * width * item_bytes, element, width)
                if j == 0:
                    for d in range(width):
                        out[d] = weight * widen(x[d])
                else:
                    for d in range(width):
                        out[d] += weight * widen(x[d])

    return kernel(weighted_sum)
