"""What an attention backend is given and what it must do; nothing of how.

Tokens of one step are flattened, `[num_tokens, ...]`, sequence after sequence and without padding.
Each sequence brings `query_len >= 1` new tokens that follow the `seq_len - query_len` tokens whose
keys and values are in the paged cache already:

    sequence s    [ cached tokens .............. | new tokens ]
                  0            seq_len - query_len            seq_len
    flattened     q, k, v rows query_start_loc[s] : query_start_loc[s + 1]
    cache         token at position p lives in block block_tables[s, p // block_size],
                  row p % block_size

A decode is nothing special: a sequence whose `query_len` is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.engine.kv_cache import LayerCache

__all__ = ["AttentionBackend", "AttentionMetadata", "make_metadata"]

IntArray = npt.NDArray[np.integer]


@dataclass(slots=True)
class AttentionMetadata:
    """Where each token of a step stands and where its keys and values live.

    One object per step, shared by all layers. S = num_seqs, T = num_tokens.
    """

    positions: Tensor  # int64 [T]: position of each new token in its sequence
    slot_mapping: Tensor  # int64 [T]: block_id * block_size + row, where its K/V is written
    query_start_loc: Tensor  # int32 [S + 1]: prefix sums of the query lengths
    seq_lens: Tensor  # int32 [S]: context length including this step's tokens
    block_tables: Tensor  # int32 [S, max_blocks]: entries past a sequence's last block are unused
    num_decodes: int  # sequences with one new token
    max_query_len: int
    max_seq_len: int

    @property
    def num_seqs(self) -> int:
        return self.seq_lens.shape[0]

    @property
    def num_tokens(self) -> int:
        return self.positions.shape[0]


class AttentionBackend(Protocol):
    """Writes a step's K/V into the paged cache, then attends causally over each sequence."""

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
        """Attention of the step's tokens over their sequences (Vaswani et al. 2017, eq. 1).

        Args:
            q: [num_tokens, num_heads, head_dim]; rotated already.
            k, v: [num_tokens, num_kv_heads, head_dim], `num_heads % num_kv_heads == 0`; query head
                h reads key/value head `h // (num_heads // num_kv_heads)`.
            cache: this layer's share of the paged cache; rows `meta.slot_mapping` are written.
            scale: multiplies q · k.
            window: a query at position p sees positions `p - window < j <= p`; None: all `j <= p`.

        Inputs may be views with any stride over tokens; head_dim must be contiguous.

        Returns:
            [num_tokens, num_heads, head_dim], contiguous, in the dtype of q.
        """
        ...


def make_metadata(
    num_computed_tokens: IntArray,
    num_new_tokens: IntArray,
    block_tables: IntArray,
    block_size: int,
    device: torch.device | str = "cpu",
) -> AttentionMetadata:
    """The metadata of a step, from arrays with one entry (row) per sequence.

    Args:
        num_computed_tokens: [S] tokens of each sequence that are in the cache already.
        num_new_tokens: [S] tokens computed now, each >= 1.
        block_tables: [S, max_blocks] covering `num_computed_tokens + num_new_tokens`.
        block_size: tokens per block.
    """
    computed = np.asarray(num_computed_tokens, dtype=np.int64)
    new = np.asarray(num_new_tokens, dtype=np.int64)
    tables = np.ascontiguousarray(block_tables, dtype=np.int32)
    seq_lens = computed + new
    start_loc = np.zeros(len(new) + 1, dtype=np.int32)
    np.cumsum(new, out=start_loc[1:])
    rows = np.repeat(np.arange(len(new)), new)  # [T] sequence of each token
    # Position = computed + index within the query = flat index + (computed - start of its query).
    positions = np.arange(start_loc[-1]) + (computed - start_loc[:-1])[rows]
    slots = tables[rows, positions // block_size].astype(np.int64) * block_size
    slots += positions % block_size

    def tensor(array: IntArray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return AttentionMetadata(
        positions=tensor(positions),
        slot_mapping=tensor(slots),
        query_start_loc=tensor(start_loc),
        seq_lens=tensor(seq_lens.astype(np.int32)),
        block_tables=tensor(tables),
        num_decodes=int(np.count_nonzero(new == 1)),
        max_query_len=int(new.max()),
        max_seq_len=int(seq_lens.max()),
    )
