"""Random ragged attention problems: sequences of many lengths, fed in chunks, over shuffled blocks.

A case carries the whole K/V of each sequence; `run_in_chunks` feeds them to a backend step by step
as a scheduler would (prefill, chunked prefill, decode mixed in one batch); `dense_attention` is the
answer by torch's own attention over the dense tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from services.engine.attention import AttentionBackend, make_metadata
from services.engine.kv_cache import LayerCache


@dataclass(frozen=True)
class AttentionCase:
    steps: tuple[tuple[int, ...], ...]  # per step: new tokens of each sequence (0 = sits out)
    num_kv_heads: int
    group_size: int  # query heads per key/value head
    head_dim: int
    block_size: int
    window: int | None
    seed: int

    @property
    def num_seqs(self) -> int:
        return len(self.steps[0])

    @property
    def seq_lens(self) -> list[int]:
        return [sum(step[s] for step in self.steps) for s in range(self.num_seqs)]


@st.composite
def attention_cases(draw: st.DrawFn) -> AttentionCase:
    num_seqs = draw(st.integers(1, 5))
    length = st.one_of(st.just(0), st.just(1), st.just(1), st.integers(2, 40))
    num_steps = draw(st.integers(1, 4))
    steps = [tuple(draw(length) for _ in range(num_seqs)) for _ in range(num_steps)]
    steps.append((1,) * num_seqs)  # no sequence is empty, and one step is all decodes
    return AttentionCase(
        steps=tuple(steps),
        num_kv_heads=draw(st.integers(1, 3)),
        group_size=draw(st.sampled_from([1, 2, 3, 4, 8])),
        head_dim=draw(st.sampled_from([32, 64, 80, 128])),
        block_size=draw(st.sampled_from([1, 3, 16, 32])),
        window=draw(st.one_of(st.none(), st.integers(1, 50))),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@dataclass(frozen=True)
class Tensors:
    """Per sequence: q [seq_len, num_heads, head_dim]; k, v [seq_len, num_kv_heads, head_dim]."""

    q: list[Tensor]
    k: list[Tensor]
    v: list[Tensor]


def make_tensors(case: AttentionCase, dtype: torch.dtype) -> Tensors:
    generator = torch.Generator().manual_seed(case.seed)

    def heads(count: int) -> list[Tensor]:
        return [
            torch.randn(n, count, case.head_dim, generator=generator).to(dtype)
            for n in case.seq_lens
        ]

    num_heads = case.num_kv_heads * case.group_size
    return Tensors(q=heads(num_heads), k=heads(case.num_kv_heads), v=heads(case.num_kv_heads))


def empty_cache(case: AttentionCase, dtype: torch.dtype, num_blocks: int) -> LayerCache:
    """Full of NaN: a backend that lets an unwritten row reach its result is found out."""
    shape = (num_blocks, case.num_kv_heads, case.block_size, case.head_dim)
    return LayerCache(
        torch.full(shape, torch.nan).to(dtype), torch.full(shape, torch.nan).to(dtype)
    )


def run_in_chunks(case: AttentionCase, data: Tensors, attend: AttentionBackend) -> list[Tensor]:
    """Per sequence [seq_len, num_heads, head_dim], collected over the steps."""
    blocks_per_seq = -(-max(case.seq_lens) // case.block_size)
    num_blocks = blocks_per_seq * case.num_seqs + 3
    rng = np.random.default_rng(case.seed)
    tables = rng.permutation(num_blocks)[: blocks_per_seq * case.num_seqs]
    tables = tables.reshape(case.num_seqs, blocks_per_seq)
    cache = empty_cache(case, data.q[0].dtype, num_blocks)
    computed = np.zeros(case.num_seqs, dtype=np.int64)
    outputs: list[list[Tensor]] = [[] for _ in range(case.num_seqs)]
    for step in case.steps:
        new = np.array(step)
        active = np.flatnonzero(new)
        if not len(active):
            continue
        spans = [slice(a, a + n) for a, n in zip(computed, new, strict=True)]
        meta = make_metadata(computed[active], new[active], tables[active], case.block_size)

        def rows(tensors: list[Tensor], spans: list[slice] = spans) -> Tensor:
            return torch.cat([tensor[span] for tensor, span in zip(tensors, spans, strict=True)])

        out = attend(
            rows(data.q), rows(data.k), rows(data.v), cache, meta,
            scale=case.head_dim**-0.5, window=case.window,
        )  # fmt: skip
        for s, piece in zip(active, out.split(new[active].tolist()), strict=True):
            outputs[s].append(piece)
        computed += new
    return [torch.cat(pieces) for pieces in outputs]


def dense_attention(case: AttentionCase, data: Tensors) -> list[Tensor]:
    """The same by torch's own attention, in float32, whole sequences at once."""
    outputs = []
    for q, k, v in zip(data.q, data.k, data.v, strict=True):
        position = torch.arange(len(q))
        mask = position[None, :] <= position[:, None]
        if case.window is not None:
            mask &= position[None, :] > position[:, None] - case.window
        out = F.scaled_dot_product_attention(
            *(t.float().transpose(0, 1)[None] for t in (q, k, v)),
            attn_mask=mask,
            scale=case.head_dim**-0.5,
            enable_gqa=True,
        )
        outputs.append(out[0].transpose(0, 1))
    return outputs
