"""The paged K/V tensors of all layers: their size, layout, and how rows are written and copied.

Knows nothing of who owns a block (`block_pool.py`) or why it is copied (`scheduler.py`).

Layout: one tensor `[num_layers, 2, num_blocks, num_kv_heads, block_size, head_dim]`. What one
(sequence, key/value head) reads from a block, `[block_size, head_dim]`, is contiguous, so a decode
streams memory in order; and a copy of a block in every layer is one indexed copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.engine.config import EngineConfig, ModelConfig
from services.engine.errors import ConfigError

__all__ = ["KVCache", "LayerCache", "bytes_per_block", "num_blocks_for"]


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values, `[num_blocks, num_kv_heads, block_size, head_dim]` each."""

    k: Tensor
    v: Tensor

    @property
    def block_size(self) -> int:
        return self.k.shape[2]

    def write(self, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        """Stores k, v [num_tokens, num_kv_heads, head_dim] at `slot_mapping` (int64)."""
        block_ids = slot_mapping // self.block_size
        rows = slot_mapping % self.block_size
        # Indices around a slice: the indexed axes come first, [num_tokens, num_kv_heads, head_dim].
        self.k[block_ids, :, rows] = k
        self.v[block_ids, :, rows] = v

    def gather(self, block_table: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:
        """A sequence's first `seq_len` keys and values, [seq_len, num_kv_heads, head_dim] each.

        `block_table` is int [max_blocks]; a copy, for backends that attend over dense tensors.
        """
        num_blocks = -(-seq_len // self.block_size)
        block_ids = block_table[:num_blocks]

        def dense(paged: Tensor) -> Tensor:
            blocks = paged.index_select(
                0, block_ids
            )  # [blocks, num_kv_heads, block_size, head_dim]
            return blocks.transpose(1, 2).flatten(0, 1)[:seq_len]

        return dense(self.k), dense(self.v)


class KVCache:
    """The paged cache of a model: `num_blocks` blocks of `block_size` tokens in every layer.

    Raises `ConfigError` naming `kv_cache_bytes` when the budget cannot hold one sequence of
    full context.
    """

    def __init__(
        self,
        config: ModelConfig,
        engine: EngineConfig,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.block_size = engine.block_size
        self.num_blocks = num_blocks_for(config, engine, dtype)
        self.bytes_per_block = bytes_per_block(config, engine, dtype)
        shape = (
            config.num_layers,
            2,
            self.num_blocks,
            config.num_kv_heads,
            engine.block_size,
            config.head_dim,
        )
        # Written once, so that all of it is resident from the start: a cache that does not fit
        # fails now, and a process that grows later leaks. A backend must still not even multiply
        # what lies past a sequence's end by zero: what another left there may be infinite.
        self._data = torch.empty(shape, dtype=dtype, device=device).zero_()
        self.layers = [LayerCache(layer[0], layer[1]) for layer in self._data]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies block src to dst in every layer, for each (src, dst); all reads come first."""
        if not pairs:
            return
        src, dst = torch.tensor(pairs, device=self._data.device).unbind(dim=1)
        self._data[:, :, dst] = self._data[:, :, src]


def bytes_per_block(config: ModelConfig, engine: EngineConfig, dtype: torch.dtype) -> int:
    """Bytes that one block takes over all layers, keys and values together."""
    per_token = config.num_layers * 2 * config.num_kv_heads * config.head_dim * dtype.itemsize
    return per_token * engine.block_size


def num_blocks_for(config: ModelConfig, engine: EngineConfig, dtype: torch.dtype) -> int:
    """Blocks that `kv_cache_bytes` pays for.

    Raises `ConfigError` naming `kv_cache_bytes` when they do not hold one sequence of full context.
    """
    block_bytes = bytes_per_block(config, engine, dtype)
    num_blocks = engine.kv_cache_bytes // block_bytes
    context = engine.context_length(config)
    needed = -(-context // engine.block_size)
    if num_blocks < needed:
        raise ConfigError(
            "kv_cache_bytes",
            f"expected at least {needed * block_bytes} to hold one sequence of {context} tokens, "
            f"got {engine.kv_cache_bytes}",
        )
    return num_blocks
