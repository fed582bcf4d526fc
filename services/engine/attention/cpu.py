"""The fast path on CPUs: compiled kernels for few query tokens, torch's own attention for many.

A sequence with at most `MAX_KERNEL_QUERIES` new tokens (a decode) is attended to in place, over the
paged cache, by compiled kernels. A longer one (a prompt, or a chunk of it) goes to torch's flash
attention: over its own keys and values where it is fresh, else over a dense copy of its context,
padded to few lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from services.engine.attention.interface import AttentionMetadata
from services.engine.cpu_kernels.openmp import float_bits, launch
from services.engine.cpu_kernels.paged_attention import paged_attention_kernels
from services.engine.kv_cache import LayerCache
from services.engine.padding import pad_rows, padded

__all__ = ["CPUAttention"]

MAX_KERNEL_QUERIES = 4  # beyond it, reading the context once for all queries wins
_NO_WINDOW = 1 << 40  # more than any position


@dataclass(slots=True)
class _LongQuery:
    """A sequence with many new tokens: rows [start, stop) of the step, seq_len tokens in all."""

    start: int
    stop: int
    seq_len: int
    block_table: Tensor
    masks: dict[int | None, Tensor] = field(default_factory=dict)  # by window

    @property
    def is_fresh(self) -> bool:
        return self.stop - self.start == self.seq_len


@dataclass(slots=True)
class _Plan:
    """What a step's layers share: which tokens take which path."""

    meta: AttentionMetadata
    rows: npt.NDArray[np.int32]  # token rows for the kernel
    row_seqs: npt.NDArray[np.int32]  # and the sequence of each
    num_row_keys: int  # keys that they see, in all
    long_queries: list[_LongQuery]


class CPUAttention:
    """bfloat16 or float32, with softmax and sums in float32.

    Holds a step's plan: one per engine, not for two threads at once.
    """

    def __init__(self) -> None:
        self._plan: _Plan | None = None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: LayerCache,
        meta: AttentionMetadata,
        *,
        scale: float,
        window: int | None,
    ) -> Tensor:
        if self._plan is None or self._plan.meta is not meta:
            self._plan = _make_plan(meta)
        plan = self._plan
        q, k, v = _with_dense_heads(q), _with_dense_heads(k), _with_dense_heads(v)
        _write(k, v, cache, meta)
        out = torch.empty(q.shape, dtype=q.dtype)
        if len(plan.rows):
            _attend_rows(q, cache, plan, scale, window, out)
        for query in plan.long_queries:
            rows = slice(query.start, query.stop)
            out[rows] = _attend_long(q[rows], k[rows], v[rows], cache, query, scale, window)
        return out


def _write(k: Tensor, v: Tensor, cache: LayerCache, meta: AttentionMetadata) -> None:
    num_tokens, num_kv_heads, head_dim = k.shape
    arguments = (
        num_tokens, num_kv_heads, cache.block_size, meta.slot_mapping.data_ptr(),
        k.data_ptr(), k.stride(0), cache.k.data_ptr(),
        v.data_ptr(), v.stride(0), cache.v.data_ptr(),
    )  # fmt: skip
    launch(paged_attention_kernels(k.dtype, head_dim).write, arguments, 2 * k.numel())


def _attend_rows(
    q: Tensor, cache: LayerCache, plan: _Plan, scale: float, window: int | None, out: Tensor
) -> None:
    """The sequences with few new tokens, straight over the paged cache."""
    _, num_heads, head_dim = q.shape
    num_kv_heads = cache.k.shape[1]
    meta = plan.meta
    arguments = (
        len(plan.rows), num_kv_heads, num_heads // num_kv_heads, cache.block_size,
        plan.rows.ctypes.data, plan.row_seqs.ctypes.data, meta.positions.data_ptr(),
        meta.block_tables.data_ptr(), meta.block_tables.stride(0),
        _NO_WINDOW if window is None else window, float_bits(scale), meta.max_seq_len,
        q.data_ptr(), q.stride(0), cache.k.data_ptr(), cache.v.data_ptr(), out.data_ptr(),
    )  # fmt: skip
    kernel = paged_attention_kernels(q.dtype, head_dim).attend
    launch(kernel, arguments, plan.num_row_keys * num_heads * head_dim)


def _make_plan(meta: AttentionMetadata) -> _Plan:
    starts = meta.query_start_loc.numpy()
    query_lens = np.diff(starts)
    seq_lens = meta.seq_lens.numpy()
    row_seqs = np.repeat(np.arange(len(query_lens), dtype=np.int32), query_lens)
    rows = np.flatnonzero(query_lens[row_seqs] <= MAX_KERNEL_QUERIES).astype(np.int32)
    return _Plan(
        meta=meta,
        rows=rows,
        row_seqs=row_seqs[rows],
        num_row_keys=int(seq_lens[row_seqs[rows]].sum()),
        long_queries=[
            _LongQuery(int(starts[s]), int(starts[s + 1]), int(seq_lens[s]), meta.block_tables[s])
            for s in np.flatnonzero(query_lens > MAX_KERNEL_QUERIES)
        ],
    )


def _attend_long(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: LayerCache,
    query: _LongQuery,
    scale: float,
    window: int | None,
) -> Tensor:
    """One sequence's new tokens: q [query_len, num_heads, head_dim] -> the same shape."""
    query_len = len(q)
    if not query.is_fresh:
        k, v = cache.gather(query.block_table, query.seq_len)  # [seq_len, num_kv_heads, head_dim]
    num_queries, num_keys = padded(query_len), padded(query.seq_len)
    q, k, v = pad_rows(q, num_queries), pad_rows(k, num_keys), pad_rows(v, num_keys)
    mask = None
    if not query.is_fresh or (window is not None and window < query.seq_len):
        mask = query.masks.get(window)
        if mask is None:
            first = query.seq_len - query_len
            mask = query.masks[window] = _mask(first, num_queries, num_keys, window, q.dtype)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, heads, tokens, head_dim]
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )
    return out.squeeze(0).transpose(0, 1)[:query_len]


def _mask(
    first: int, num_queries: int, num_keys: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    """[num_queries, num_keys]: 0 where a query sees a key, else -inf; queries stand from `first`.

    What is added after a sequence's last token comes after all that its queries see.
    """
    key = torch.arange(num_keys)
    position = torch.arange(first, first + num_queries)[:, None]
    hidden = key > position
    if window is not None:
        hidden |= key <= position - window
    return torch.zeros(num_queries, num_keys, dtype=dtype).masked_fill_(hidden, float("-inf"))


def _with_dense_heads(x: Tensor) -> Tensor:
    """[tokens, heads, head_dim] whose heads follow each other in memory, tokens at any stride."""
    if x.stride(2) == 1 and x.stride(1) == x.shape[2]:
        return x
    return x.contiguous()
