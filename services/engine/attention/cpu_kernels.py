"""Compiled CPU kernels over the paged cache: writing K/V rows, and attention of single queries.

numba compiles each kernel on first use, for this CPU, and keeps the machine code on disk. A kernel
is a C function `void(void *)` over an int64 array of addresses and sizes, so that a call costs one
foreign call, runs without the GIL, and can be run by every thread of torch's own OpenMP pool
(`openmp.py`). Threads take work items from a shared counter, which balances ragged batches.

bfloat16 is read as uint16: the upper half of a float32. All arithmetic is in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

__all__ = ["CPUKernels", "load_kernels"]

_CFUNC: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}
_FAST: dict[str, Any] = {**_CFUNC, "nogil": True, "cache": True}

# What each entry of a kernel's argument array is; index 0 is always the shared work counter.
WRITE_ARGS = (
    "counter", "num_tokens", "num_kv_heads", "block_size", "slot_mapping",
    "k", "k_stride", "v", "v_stride", "k_cache", "v_cache",
)  # fmt: skip
ATTEND_ARGS = (
    "counter", "num_rows", "num_kv_heads", "group_size", "block_size", "rows", "row_seqs",
    "positions", "block_tables", "table_stride", "window", "scale_bits", "max_seq_len",
    "q", "q_stride", "k_cache", "v_cache", "out",
)  # fmt: skip


@intrinsic
def _pointer(typingctx, address, element):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The address (int64) as a pointer to elements of the given type."""
    pointer = types.CPointer(element.dtype)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return pointer(types.int64, element), codegen


@intrinsic
def _take_next(typingctx, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Adds one to the int64 at the address, atomically, and returns what it was."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(types.int64), codegen


@intrinsic
def _bits_to_float(typingctx, bits):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _float_to_bits(typingctx, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _widen(typingctx, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """A cache element as float32: itself, or bfloat16 bits in a uint16."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        if signature.args[0] == types.float32:
            return args[0]
        bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), codegen


@intrinsic
def _narrow(typingctx, value, like):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """float32 as the type of `like`: itself, or bfloat16 bits, rounded to nearest even."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        if signature.return_type == types.float32:
            return args[0]
        i32 = ir.IntType(32)
        bits = builder.bitcast(args[0], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        rounded = builder.add(bits, builder.add(odd, i32(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, i32(16)), ir.IntType(16))

    return like(types.float32, like), codegen


_LOG2_E = np.float32(1.4426950408889634)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_MIN_EXPONENT = np.float32(-126.0)
# 2^f for |f| <= 1/2: Taylor terms ln(2)^k / k!, relative error below 2e-7.
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (
        0.6931471805599453, 0.2402265069591007, 0.0555041086648216,
        0.009618129107628477, 0.0013333558146428441, 0.00015403530393381608,
    )
)  # fmt: skip


@njit(**_FAST)
def _exp(x):  # type: ignore[no-untyped-def]
    """e^x for x <= 0, by operations that the compiler can put into vector registers."""
    exponent = max(x * _LOG2_E, _MIN_EXPONENT)
    whole = np.int32(exponent - _HALF)  # towards zero: to nearest, as the exponent is not positive
    f = exponent - np.float32(whole)
    power = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    return power * _bits_to_float(np.int32((whole + np.int32(127)) << np.int32(23)))


@njit(**_FAST)
def _floats(address, count):  # type: ignore[no-untyped-def]
    return carray(_pointer(address, np.float32), (count,))


@njit(**_FAST)
def _dot(q, k, head_dim):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(head_dim):
        total += q[d] * _widen(k[d])
    return total


@njit(**_FAST)
def _dot_pair(q, r, k, head_dim):  # type: ignore[no-untyped-def]
    """Two query heads on one key: the key is widened once."""
    first, second = np.float32(0), np.float32(0)
    for d in range(head_dim):
        key = _widen(k[d])
        first += q[d] * key
        second += r[d] * key
    return first, second


@dataclass(frozen=True, slots=True)
class CPUKernels:
    """Addresses of the compiled kernels, `void(int64 *)`, for one dtype and head_dim."""

    write: int
    attend: int
    keep: tuple[Any, Any]  # the compiled functions own the code that the addresses point to


@cache
def load_kernels(dtype: torch.dtype, head_dim: int) -> CPUKernels:
    """Compiles the kernels, or loads them from the cache on disk (numba's, beside this file).

    The first time on a machine takes seconds, later ones a fraction of one.
    """
    element = {torch.bfloat16: np.uint16, torch.float32: np.float32}[dtype]
    write, attend = make_write_kernel(element, head_dim), make_attend_kernel(element, head_dim)
    return CPUKernels(write.address, attend.address, keep=(write, attend))


def make_write_kernel(element: Any, head_dim: int) -> Any:
    """K/V rows of new tokens into the paged cache, one token per work item. See `WRITE_ARGS`."""
    item_bytes = np.dtype(element).itemsize

    @cfunc(types.void(types.CPointer(types.int64)), cache=True, **_CFUNC)
    def write(address):  # type: ignore[no-untyped-def]
        args = carray(address, (11,))
        num_tokens, num_kv_heads, block_size = args[1], args[2], args[3]
        slots = carray(_pointer(args[4], np.int64), (num_tokens,))
        row_bytes = head_dim * item_bytes
        while True:
            t = _take_next(args[0])
            if t >= num_tokens:
                return
            block, row = slots[t] // block_size, slots[t] % block_size
            for h in range(num_kv_heads):
                offset = ((block * num_kv_heads + h) * block_size + row) * row_bytes
                for c in range(2):  # keys, then values
                    source = args[5 + 2 * c] + (t * args[6 + 2 * c]) * item_bytes + h * row_bytes
                    new = carray(_pointer(source, element), (head_dim,))
                    cached = carray(_pointer(args[9 + c] + offset, element), (head_dim,))
                    for d in range(head_dim):
                        cached[d] = new[d]

    return write


def make_attend_kernel(element: Any, head_dim: int) -> Any:
    """Attention of single query tokens over the paged cache. See `ATTEND_ARGS`.

    A work item is a (query token, key/value head) with the group of query heads that reads it.
    """
    item_bytes = np.dtype(element).itemsize

    @cfunc(types.void(types.CPointer(types.int64)), cache=True, **_CFUNC)
    def attend(address):  # type: ignore[no-untyped-def]
        args = carray(address, (18,))
        num_rows, num_kv_heads, group, block_size = args[1], args[2], args[3], args[4]
        rows = carray(_pointer(args[5], np.int32), (num_rows,))
        row_seqs = carray(_pointer(args[6], np.int32), (num_rows,))
        window, scale = args[10], _bits_to_float(np.int32(args[11]))
        capacity = args[12]  # of scores, per query head
        q_heads = np.empty(group * head_dim, np.float32)
        sums = np.empty(group * head_dim, np.float32)
        scores = np.empty(group * capacity, np.float32)
        while True:
            item = _take_next(args[0])
            if item >= num_rows * num_kv_heads:
                return
            i, h = item // num_kv_heads, item % num_kv_heads
            t = np.int64(rows[i])
            position = carray(_pointer(args[7], np.int64), (t + 1,))[t]
            table_address = args[8] + np.int64(row_seqs[i]) * args[9] * 4
            table = carray(_pointer(table_address, np.int32), (position // block_size + 1,))
            first = max(np.int64(0), position + 1 - window)
            q_address = args[13] + (t * args[14] + h * group * head_dim) * item_bytes
            q = carray(_pointer(q_address, element), (group * head_dim,))
            for j in range(group * head_dim):
                q_heads[j] = _widen(q[j]) * scale
                sums[j] = np.float32(0)

            # scores[g, p - first] = q_g · k_p
            p = first
            while p <= position:
                block = np.int64(table[p // block_size])
                stop = min(position + 1, (p // block_size + 1) * block_size)
                k_row = args[15] + (
                    ((block * num_kv_heads + h) * block_size + p % block_size)
                    * head_dim * item_bytes
                )  # fmt: skip
                while p < stop:
                    k = carray(_pointer(k_row, element), (head_dim,))
                    g = 0
                    while g + 1 < group:
                        q_row = q_heads.ctypes.data + g * head_dim * 4
                        a, b = _dot_pair(_floats(q_row, head_dim), _floats(q_row + head_dim * 4, head_dim), k, head_dim)
                        scores[g * capacity + p - first] = a
                        scores[(g + 1) * capacity + p - first] = b
                        g += 2
                    if g < group:
                        q_row = q_heads.ctypes.data + g * head_dim * 4
                        scores[g * capacity + p - first] = _dot(_floats(q_row, head_dim), k, head_dim)
                    k_row += head_dim * item_bytes
                    p += 1

            # Softmax, not yet divided by its sum.
            count = position + 1 - first
            out_address = args[17] + ((t * num_kv_heads + h) * group * head_dim * item_bytes)
            out = carray(_pointer(out_address, element), (group * head_dim,))
            for g in range(group):
                weights = _floats(scores.ctypes.data + g * capacity * 4, count)
                highest = weights[0]
                for j in range(count):
                    highest = max(highest, weights[j])
                total = np.float32(0)
                for j in range(count):
                    weights[j] = _exp(weights[j] - highest)
                    total += weights[j]
                inverse = _ONE / total
                for j in range(count):
                    weights[j] *= inverse

            # sums[g] = sum over p of weight[g, p] * v_p
            p = first
            while p <= position:
                block = np.int64(table[p // block_size])
                stop = min(position + 1, (p // block_size + 1) * block_size)
                v_row = args[16] + (
                    ((block * num_kv_heads + h) * block_size + p % block_size)
                    * head_dim * item_bytes
                )  # fmt: skip
                while p < stop:
                    if p + 3 < stop:
                        v = carray(_pointer(v_row, element), (head_dim,))
                        v1 = carray(_pointer(v_row + head_dim * item_bytes, element), (head_dim,))
                        v2 = carray(_pointer(v_row + 2*head_dim * item_bytes, element), (head_dim,))
                        v3 = carray(_pointer(v_row + 3*head_dim * item_bytes, element), (head_dim,))
                        for g in range(group):
                            w = g * capacity + p - first
                            w0, w1, w2, w3 = scores[w], scores[w + 1], scores[w + 2], scores[w + 3]
                            sum_g = _floats(sums.ctypes.data + g * head_dim * 4, head_dim)
                            for d in range(head_dim):
                                sum_g[d] += (
                                    w0 * _widen(v[d]) + w1 * _widen(v1[d])
                                    + w2 * _widen(v2[d])
                                    + w3 * _widen(v3[d])
                                )  # fmt: skip
                        v_row += 4 * head_dim * item_bytes
                        p += 4
                    else:
                        v = carray(_pointer(v_row, element), (4 * head_dim,))
                        for g in range(group):
                            w0 = scores[g * capacity + p - first]
                            sum_g = _floats(sums.ctypes.data + g * head_dim * 4, head_dim)
                            for d in range(head_dim):
                                sum_g[d] += w0 * _widen(v[d])
                        v_row += head_dim * item_bytes
                        p += 1

            for j in range(group * head_dim):
                out[j] = _narrow(sums[j], out[j])

    return attend
