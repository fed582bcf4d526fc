"""Attention in plain torch, one sequence at a time: clear rather than fast, the tests' oracle.

Runs on any device and dtype that torch has. Knows nothing of kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.engine.attention.interface import AttentionMetadata
from services.engine.kv_cache import LayerCache

__all__ = ["ReferenceAttention"]


class ReferenceAttention:
    """Softmax(q kᵀ · scale + mask) v per sequence (Vaswani et al. 2017, eq. 1), in float32."""

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
        cache.write(k, v, meta.slot_mapping)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        starts = meta.query_start_loc.tolist()
        for s, seq_len in enumerate(meta.seq_lens.tolist()):
            rows = slice(starts[s], starts[s + 1])
            keys, values = cache.gather(meta.block_tables[s], seq_len)
            out[rows] = _attend(q[rows], keys, values, scale, window)
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """One sequence: q [query_len, num_heads, head_dim]; k, v [seq_len, num_kv_heads, head_dim]."""
    query_len, num_heads, _ = q.shape
    seq_len, num_kv_heads, _ = k.shape
    k = k.float().repeat_interleave(num_heads // num_kv_heads, dim=1)  # [seq_len, num_heads, d]
    v = v.float().repeat_interleave(num_heads // num_kv_heads, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    key_position = torch.arange(seq_len, device=q.device)
    query_position = key_position[seq_len - query_len :, None]
    visible = key_position <= query_position  # [query_len, seq_len]
    if window is not None:
        visible &= key_position > query_position - window
    probabilities = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", probabilities, v).to(q.dtype)
