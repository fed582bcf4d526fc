"""Kernels over the paged cache: writing K/V rows, and attention of single query tokens.

Layout of a cache: `[num_blocks, num_kv_heads, block_size, head_dim]`; a tile is what one key/value
head has in one block, `[block_size, head_dim]`, contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray

from services.engine.cpu_kernels.primitives import (
    ELEMENT_TYPES,
    always_inline,
    exp,
    float_of_bits,
    helper,
    highest,
    kernel,
    narrow,
    prefetch,
    take_item,
    vector,
    widen,
)

__all__ = ["PagedAttentionKernels", "paged_attention_kernels"]


@dataclass(frozen=True, slots=True)
class PagedAttentionKernels:
    """Addresses of the compiled kernels for one dtype and head_dim."""

    write: int
    attend: int
    owners: tuple[Any, Any]  # of the code that the addresses point to


@cache
def paged_attention_kernels(dtype: torch.dtype, head_dim: int) -> PagedAttentionKernels:
    """head_dim is built into the code, so that the loops over it are unrolled."""
    element = ELEMENT_TYPES[dtype]
    write, attend = _write_kernel(element, head_dim), _attend_kernel(element, head_dim)
    return PagedAttentionKernels(write.address, attend.address, owners=(write, attend))


def _write_kernel(element: Any, head_dim: int) -> Any:
    """Arguments: num_tokens, num_kv_heads, block_size, slot_mapping, then for keys and for values:
    the new rows, elements from one token to the next, the cache. A work item is a token."""
    item_bytes = np.dtype(element).itemsize
    row_bytes = head_dim * item_bytes

    def write_kv(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (11,))
        num_tokens, num_kv_heads, block_size = args[1], args[2], args[3]
        slots = vector(args[4], np.int64, num_tokens)
        while True:
            t = take_item(pointer)
            if t >= num_tokens:
                return
            block, row = slots[t] // block_size, slots[t] % block_size
            for h in range(num_kv_heads):
                offset = ((block * num_kv_heads + h) * block_size + row) * row_bytes
                for base in range(5, 11, 3):  # keys, then values
                    source = args[base] + t * args[base + 1] * item_bytes + h * row_bytes
                    new = vector(source, element, head_dim)
                    cached = vector(args[base + 2] + offset, element, head_dim)
                    for d in range(head_dim):
                        cached[d] = new[d]

    return kernel(write_kv)


# Helpers pass matrices of float32 as (address, columns): an array object would be counted,
# atomically, by each innermost loop that it enters.


@helper
def _row(matrix, i, length):  # type: ignore[no-untyped-def]
    """The first `length` entries of row i of a float32 matrix."""
    address, columns = matrix
    return vector(address + i * columns * 4, np.float32, length)


@helper
def _tile(tiles, index):  # type: ignore[no-untyped-def]
    """Address of a sequence's tile number `index`."""
    table, base, block_bytes, _ = tiles
    return base + np.int64(vector(table + 4 * index, np.int32, 1)[0]) * block_bytes


@helper
def _load_queries(address, element, item_bytes, scale, q, group):  # type: ignore[no-untyped-def]
    always_inline()
    head_dim = q[1]
    for g in range(group):
        source = vector(address + g * head_dim * item_bytes, element, head_dim)
        row = _row(q, g, head_dim)
        for d in range(head_dim):
            row[d] = widen(source[d]) * scale


@helper
def _score(q, group, tiles, then, span, element, item_bytes, scores):  # type: ignore[no-untyped-def]
    """scores[g, p - start] = q_g · k_p. Two query heads at a time: a key is widened once.

    While a tile is computed with, the next is fetched row by row; `then` comes after the last.
    """
    always_inline()
    start, stop = span
    block_size, head_dim = tiles[3], q[1]
    row_bytes = head_dim * item_bytes
    p = start
    while p < stop:
        b = p // block_size
        end = min(stop, (b + 1) * block_size)
        address = _tile(tiles, b) + (p - b * block_size) * row_bytes
        ahead = then if end == stop else _tile(tiles, b + 1)
        while p < end:
            prefetch(ahead, row_bytes)
            ahead += row_bytes
            k = vector(address, element, head_dim)
            for g in range(0, group - 1, 2):
                q0, q1 = _row(q, g, head_dim), _row(q, g + 1, head_dim)
                dot0, dot1 = np.float32(0), np.float32(0)
                for d in range(head_dim):
                    key = widen(k[d])
                    dot0 += q0[d] * key
                    dot1 += q1[d] * key
                _entry(scores, g, p - start)[0] = dot0
                _entry(scores, g + 1, p - start)[0] = dot1
            if group % 2 == 1:
                q0, dot0 = _row(q, group - 1, head_dim), np.float32(0)
                for d in range(head_dim):
                    dot0 += q0[d] * widen(k[d])
                _entry(scores, group - 1, p - start)[0] = dot0
            address += row_bytes
            p += 1


@helper
def _entry(matrix, i, j):  # type: ignore[no-untyped-def]
    """Entry (i, j) of a float32 matrix and those after it, four at most."""
    address, columns = matrix
    return vector(address + (i * columns + j) * 4, np.float32, 4)


@helper
def _softmax(scores, count):  # type: ignore[no-untyped-def]
    always_inline()
    best = highest(scores, count)
    total = np.float32(0)
    for j in range(count):
        scores[j] = exp(scores[j] - best)
        total += scores[j]
    inverse = np.float32(1) / total
    for j in range(count):
        scores[j] *= inverse


@helper
def _weigh(weights, group, tiles, span, element, item_bytes, sums):  # type: ignore[no-untyped-def]
    """sums[g] = sum over p of weights[g, p - start] · v_p.

    Four values at a time where a block has them, so that sums are loaded and stored less often.
    """
    always_inline()
    start, stop = span
    block_size, head_dim = tiles[3], sums[1]
    row_bytes = head_dim * item_bytes
    for g in range(group):
        row = _row(sums, g, head_dim)
        for d in range(head_dim):
            row[d] = np.float32(0)
    p = start
    while p < stop:
        b = p // block_size
        end = min(stop, (b + 1) * block_size)
        address = _tile(tiles, b) + (p - b * block_size) * row_bytes
        ahead = address if end == stop else _tile(tiles, b + 1)
        while p + 4 <= end:
            prefetch(ahead, 4 * row_bytes)
            ahead += 4 * row_bytes
            v0 = vector(address, element, head_dim)
            v1 = vector(address + row_bytes, element, head_dim)
            v2 = vector(address + 2 * row_bytes, element, head_dim)
            v3 = vector(address + 3 * row_bytes, element, head_dim)
            for g in range(group):
                w, row = _entry(weights, g, p - start), _row(sums, g, head_dim)
                w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
                for d in range(head_dim):
                    near = w0 * widen(v0[d]) + w1 * widen(v1[d])
                    row[d] += near + (w2 * widen(v2[d]) + w3 * widen(v3[d]))
            address += 4 * row_bytes
            p += 4
        while p < end:
            value = vector(address, element, head_dim)
            for g in range(group):
                weight, row = _entry(weights, g, p - start)[0], _row(sums, g, head_dim)
                for d in range(head_dim):
                    row[d] += weight * widen(value[d])
            address += row_bytes
            p += 1


def _attend_kernel(element: Any, head_dim: int) -> Any:
    """Arguments: num_rows, num_kv_heads, group_size, block_size, rows (int32: query tokens),
    row_seqs (int32: their sequences), positions (int64, by token), block_tables (int32),
    elements from one table to the next, window, bits of scale, max_seq_len, q, elements from one
    token of q to the next, key cache, value cache, out.

    A work item is a (query token, key/value head), for the group of query heads that reads it.
    """
    item_bytes = np.dtype(element).itemsize

    def attend_rows(pointer):  # type: ignore[no-untyped-def]
        args = carray(pointer, (18,))
        num_rows, num_kv_heads, group, block_size = args[1], args[2], args[3], args[4]
        rows = vector(args[5], np.int32, num_rows)
        row_seqs = vector(args[6], np.int32, num_rows)
        window, scale, max_seq_len = args[10], float_of_bits(np.int32(args[11])), args[12]
        tile_bytes = block_size * head_dim * item_bytes
        scratch = np.empty(group * (2 * head_dim + max_seq_len), np.float32)
        q = (scratch.ctypes.data, head_dim)
        sums = (q[0] + group * head_dim * 4, head_dim)
        scores = (sums[0] + group * head_dim * 4, max_seq_len)
        while True:
            item = take_item(pointer)
            if item >= num_rows * num_kv_heads:
                break
            i, h = item // num_kv_heads, item % num_kv_heads
            t = np.int64(rows[i])
            stop = vector(args[7], np.int64, t + 1)[t] + 1  # sees positions start to stop - 1
            span = (max(np.int64(0), stop - window), stop)
            table = args[8] + np.int64(row_seqs[i]) * args[9] * 4
            keys = (table, args[15] + h * tile_bytes, num_kv_heads * tile_bytes, block_size)
            values = (table, args[16] + h * tile_bytes, num_kv_heads * tile_bytes, block_size)
            q_address = args[13] + (t * args[14] + h * group * head_dim) * item_bytes
            _load_queries(q_address, element, item_bytes, scale, q, group)
            then = _tile(values, span[0] // block_size)
            _score(q, group, keys, then, span, element, item_bytes, scores)
            for g in range(group):
                _softmax(_row(scores, g, stop - span[0]), stop - span[0])
            _weigh(scores, group, values, span, element, item_bytes, sums)
            for g in range(group):
                address = args[17] + ((t * num_kv_heads + h) * group + g) * head_dim * item_bytes
                row, out = _row(sums, g, head_dim), vector(address, element, head_dim)
                for d in range(head_dim):
                    out[d] = narrow(row[d], out[d])
        scratch[0] = 0  # keeps the scratch alive until here

    return kernel(attend_rows)
