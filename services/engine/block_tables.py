"""Which blocks each sequence holds: placing it, growing it, copy-on-write, letting go.

Between the scheduler, which decides who runs, and the block pool, which knows ids only.

    seq.block_ids    [ 17 | 4 | 31 ]     covers every token that is computed, or about to be
    seq.content_ids  [ 80 | 81 ]         of the leading full blocks: others may find and share them

Knows nothing of order, budget or deadlines.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.engine.block_pool import BlockPool, ContentKey
from services.engine.request import Sequence

__all__ = ["BlockTables", "PrefixCacheStats"]


@dataclass(slots=True)
class PrefixCacheStats:
    """Prompt tokens that were looked up in the prefix cache, and those found, since the start."""

    num_queried: int = 0
    num_hit: int = 0


class BlockTables:
    """The block tables of all sequences over one pool."""

    def __init__(self, pool: BlockPool, *, enable_prefix_caching: bool) -> None:
        self._pool = pool
        self._size = pool.block_size
        self._caching = enable_prefix_caching
        self.prefix_cache = PrefixCacheStats()
        # Contents that this step computes: whoever waits for one of them finds it in the next.
        self._filling: set[ContentKey] = set()

    def num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._size)

    def place(self, seq: Sequence, keep_free: int) -> bool:
        """Gives a sequence blocks for all of its tokens, cached ones where it can.

        All at once, so that a prompt is not preempted half-way. `num_computed_tokens` then says
        how far the cached prefix goes. False, and nothing taken, when fewer than `keep_free`
        blocks would be left, or when this step computes the next block of its prefix anyway: of
        prompts that come together, one computes what they share.
        """
        cacheable = self._num_cacheable_tokens(seq)
        prefix = self._pool.match(seq.token_ids, seq.request.cache_salt, cacheable // self._size)
        num_cached = len(prefix.block_ids)
        if self._filling and num_cached < cacheable // self._size:
            parent = prefix.content_ids[-1] if num_cached else seq.request.cache_salt
            if self._content_key(seq, num_cached, parent) in self._filling:
                return False
        num_new = self.num_blocks_for(seq.num_tokens) - len(prefix.block_ids)
        num_idle = sum(self._pool.ref_count(block_id) == 0 for block_id in prefix.block_ids)
        if num_new + num_idle + keep_free > self._pool.num_free:
            return False
        self._pool.acquire(prefix.block_ids)
        new_block_ids = self._pool.allocate(num_new)
        assert new_block_ids is not None
        seq.block_ids = prefix.block_ids + new_block_ids
        seq.content_ids = prefix.content_ids
        seq.num_computed_tokens = len(prefix.block_ids) * self._size
        if not seq.admitted and cacheable:
            self.prefix_cache.num_queried += seq.num_tokens
            self.prefix_cache.num_hit += seq.num_computed_tokens
        return True

    def secure(self, seq: Sequence, num_tokens: int, copies: list[tuple[int, int]]) -> bool:
        """Sees that the sequence may write its next `num_tokens` tokens.

        Blocks are added where they are missing. A block that it shares with a fork, and would
        write to, is replaced by one of its own, and the copy to make added to `copies`. False, and
        nothing taken, when the pool cannot give what is needed.
        """
        first_written = seq.num_computed_tokens // self._size
        missing = self.num_blocks_for(seq.num_computed_tokens + num_tokens) - len(seq.block_ids)
        shared = (
            first_written < len(seq.block_ids)
            and self._pool.ref_count(seq.block_ids[first_written]) > 1
        )
        if missing <= 0 and not shared:
            return True
        block_ids = self._pool.allocate(max(missing, 0) + shared)
        if block_ids is None:
            return False
        if shared:
            source, copy = seq.block_ids[first_written], block_ids.pop()
            copies.append((source, copy))
            seq.block_ids[first_written] = copy
            self._pool.free([source])
        seq.block_ids.extend(block_ids)
        return True

    def expect(self, seq: Sequence, num_tokens: int) -> None:
        """Notes that the step under way computes the sequence's next `num_tokens` tokens."""
        index = len(seq.content_ids)
        if self._caching and (seq.num_computed_tokens + num_tokens) // self._size > index:
            parent = seq.content_ids[-1] if index else seq.request.cache_salt
            self._filling.add(self._content_key(seq, index, parent))

    def start_step(self) -> None:
        """Forgets what the last step was to compute."""
        self._filling.clear()

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Lets the child share all that the parent has computed."""
        self._pool.acquire(parent.block_ids)
        child.block_ids = parent.block_ids.copy()
        child.content_ids = parent.content_ids.copy()
        child.num_computed_tokens = parent.num_computed_tokens

    def advance(self, seq: Sequence, num_tokens: int) -> None:
        """Records that tokens are computed; blocks that they fill become reusable."""
        seq.num_computed_tokens += num_tokens
        if not self._caching:
            return
        for index in range(len(seq.content_ids), seq.num_computed_tokens // self._size):
            parent = seq.content_ids[-1] if index else seq.request.cache_salt
            key = self._content_key(seq, index, parent)
            seq.content_ids.append(self._pool.register(seq.block_ids[index], key))

    def release(self, seq: Sequence) -> None:
        """Gives back all blocks of the sequence."""
        self._pool.free(seq.block_ids)
        seq.block_ids = []
        seq.content_ids = []

    def check_integrity(self, holders: list[Sequence]) -> None:
        """Raises AssertionError when pool and block tables do not agree. For tests."""
        self._pool.check_integrity()
        counts = [0] * self._pool.num_blocks
        for seq in holders:
            assert len(set(seq.block_ids)) == len(seq.block_ids), "a block twice in one sequence"
            assert seq.num_computed_tokens <= len(seq.block_ids) * self._size
            assert seq.num_computed_tokens <= seq.num_tokens
            for block_id in seq.block_ids:
                counts[block_id] += 1
        actual = [self._pool.ref_count(block_id) for block_id in range(self._pool.num_blocks)]
        assert counts == actual, "reference counts and block tables disagree"

    def _content_key(self, seq: Sequence, index: int, parent: int | str) -> ContentKey:
        return parent, tuple(seq.token_ids[index * self._size : (index + 1) * self._size])

    def _num_cacheable_tokens(self, seq: Sequence) -> int:
        """Tokens that may come from the cache: not the last, whose hidden state is needed.

        Log-probabilities of the prompt need the hidden state of each of its tokens.
        """
        wants_prompt = seq.request.params.prompt_logprobs is not None
        if not self._caching or (wants_prompt and seq.num_output_tokens == 0):
            return 0
        return seq.num_tokens - 1
