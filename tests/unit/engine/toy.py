"""A model without arithmetic, for testing what surrounds models.

`ToyRunner` keeps a paged cache of *tokens* where a real runner keeps keys and values. Each step it
writes the scheduled tokens, reads every sequence's whole context back through its block table, and
fails if one token of it is not the sequence's own. The next token is a hash of the context, so
that any mix-up of contexts changes the output.
"""

from __future__ import annotations

import zlib
from types import SimpleNamespace

from services.engine.request import Sequence
from services.engine.scheduler import SchedulerOutput

VOCAB_SIZE = 97
EOS = 96


def next_token(context: list[int], index: int = 0) -> int:
    """The toy model: token `index`-th completion continues `context` with. Never EOS."""
    return zlib.crc32(repr((context, index)).encode()) % (VOCAB_SIZE - 1)


def continuation(prompt: list[int], count: int, index: int = 0) -> list[int]:
    """What the toy model generates after `prompt`, computed in the plainest way."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, index))
    return tokens[len(prompt) :]


class PagedTokens:
    """The cache: `block_id * block_size + offset` -> token."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.slots: list[int | None] = [None] * (num_blocks * block_size)

    def run(self, out: SchedulerOutput) -> None:
        """Copies blocks, writes the step's tokens, and checks every context."""
        size = self.block_size
        for source, copy in out.block_copies:
            assert source != copy
            self.slots[copy * size : (copy + 1) * size] = self.slots[
                source * size : (source + 1) * size
            ]
        for scheduled in out.scheduled:
            seq, start = scheduled.seq, scheduled.seq.num_computed_tokens
            assert scheduled.num_tokens > 0
            for position in range(start, start + scheduled.num_tokens):
                self.slots[self._slot(seq, position)] = seq.token_ids[position]
        for scheduled in out.scheduled:
            seq = scheduled.seq
            end = seq.num_computed_tokens + scheduled.num_tokens
            context = [self.slots[self._slot(seq, position)] for position in range(end)]
            assert context == seq.token_ids[:end], f"sequence {seq.seq_id} reads foreign tokens"

    def _slot(self, seq: Sequence, position: int) -> int:
        return seq.block_ids[position // self.block_size] * self.block_size + (
            position % self.block_size
        )


def toy_model(context_length: int = 64) -> SimpleNamespace:
    """What the engine reads of a loaded model."""
    return SimpleNamespace(
        config=SimpleNamespace(
            vocab_size=VOCAB_SIZE, context_length=context_length, eos_token_ids=(EOS,)
        )
    )
