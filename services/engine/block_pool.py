"""Which KV block belongs to whom: allocation, reference counts, the prefix cache, eviction.

Deals in block ids only: it knows nothing of tensors, requests or scheduling. Every operation costs
O(1) per block.

    ref > 0   in use by `ref` sequences
    ref = 0   on the free list, in the order in which blocks are handed out:

        head -> [no content] ... [cached, used longest ago] ... [cached, used last] <- tail

A full block may be *registered* under its content. It can then be found again by a later sequence
with the same prefix, also while it waits on the free list; handing it out to someone else evicts
its content. Because a sequence gives back its last block first, tails are evicted before the
prefixes they hang on.

Content is chained: the key of a block is (content id of the block before it, its tokens), and
every distinct key gets a content id that is never used again. A dict finds the key by hash and
then compares the tokens, and equal ids mean equal chains from the first token on, so that a hash
collision can cost time but never yields another prefix's keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["BlockPool", "ContentKey", "Prefix"]

# (content id of the block before it, or the salt for a first block; the tokens of the block)
ContentKey = tuple[int | str, tuple[int, ...]]


class Prefix:
    """The cached leading blocks of a token list, as `match` found them. Not yet held."""

    __slots__ = ("block_ids", "content_ids")

    def __init__(self) -> None:
        self.block_ids: list[int] = []
        self.content_ids: list[int] = []


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(
                f"expected at least one block of one token, got {num_blocks=} {block_size=}"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._ref_counts = [0] * num_blocks
        # The free list: a ring through a sentinel, whose index is num_blocks.
        self._next = [*range(1, num_blocks + 1), 0]
        self._previous = [num_blocks, *range(num_blocks)]
        self._num_free = num_blocks
        # The prefix cache.
        self._contents: dict[ContentKey, tuple[int, int]] = {}  # -> (block id, content id)
        self._keys: list[ContentKey | None] = [None] * num_blocks  # by block id
        self._next_content_id = 0

    @property
    def num_free(self) -> int:
        """Blocks that nobody refers to. They may still hold reusable prefixes."""
        return self._num_free

    @property
    def num_cached(self) -> int:
        """Blocks whose content can be found, in use or not."""
        return len(self._contents)

    def ref_count(self, block_id: int) -> int:
        return self._ref_counts[block_id]

    def allocate(self, count: int) -> list[int] | None:
        """Hands out `count` blocks, one reference each; None, and nothing taken, if it cannot."""
        if count > self._num_free:
            return None
        block_ids = []
        for _ in range(count):
            block_id = self._next[self.num_blocks]
            self._unlink(block_id)
            self._evict(block_id)
            self._ref_counts[block_id] = 1
            block_ids.append(block_id)
        return block_ids

    def acquire(self, block_ids: Iterable[int]) -> None:
        """Adds a reference to each: of a fork, or of a prefix that `match` found."""
        for block_id in block_ids:
            if self._ref_counts[block_id] == 0:
                self._unlink(block_id)
            self._ref_counts[block_id] += 1

    def free(self, block_ids: Sequence[int]) -> None:
        """Drops a reference to each block of a sequence, the last block first.

        A block without content goes to the head of the free list, to be used before any cached
        prefix is evicted; one with content goes to the tail.
        """
        for block_id in reversed(block_ids):
            count = self._ref_counts[block_id] - 1
            assert count >= 0, f"block {block_id} is free already"
            self._ref_counts[block_id] = count
            if count == 0:
                self._link(block_id, at_head=self._keys[block_id] is None)

    def match(self, token_ids: Sequence[int], salt: str, max_blocks: int) -> Prefix:
        """The longest cached prefix of `token_ids`, at most `max_blocks` full blocks of it.

        Takes nothing: the caller acquires the blocks before anything else is allocated.
        """
        prefix = Prefix()
        parent: int | str = salt
        size = self.block_size
        for start in range(0, max_blocks * size, size):
            found = self._contents.get((parent, tuple(token_ids[start : start + size])))
            if found is None:
                break
            block_id, parent = found
            prefix.block_ids.append(block_id)
            prefix.content_ids.append(parent)
        return prefix

    def register(self, block_id: int, key: ContentKey) -> int:
        """Makes a full block findable; returns its content id, the parent of the next block's.

        When another block holds the same content already, that one stays the one to be found.
        """
        assert len(key[1]) == self.block_size, "only full blocks have content"
        assert self._ref_counts[block_id] > 0, f"block {block_id} is not held"
        assert self._keys[block_id] is None, f"block {block_id} has content already"
        found = self._contents.get(key)
        if found is not None:
            return found[1]
        content_id = self._next_content_id
        self._next_content_id += 1
        self._contents[key] = (block_id, content_id)
        self._keys[block_id] = key
        return content_id

    def clear_cache(self) -> None:
        """Forgets every prefix; blocks in use stay in use."""
        self._contents.clear()
        self._keys = [None] * self.num_blocks

    def check_integrity(self) -> None:
        """Raises AssertionError when an invariant does not hold. O(num_blocks); for tests."""
        sentinel = self.num_blocks
        listed = []
        at = self._next[sentinel]
        while at != sentinel:
            listed.append(at)
            assert self._previous[self._next[at]] == at, f"free list broken at block {at}"
            assert len(listed) <= self.num_blocks, "free list has a cycle"
            at = self._next[at]
        free = {block_id for block_id, count in enumerate(self._ref_counts) if count == 0}
        assert set(listed) == free, "free list and reference counts disagree"
        assert len(listed) == self._num_free == len(free), "free count is wrong"
        assert all(count >= 0 for count in self._ref_counts), "negative reference count"
        keyed = {key: block_id for block_id, key in enumerate(self._keys) if key is not None}
        assert {key: found[0] for key, found in self._contents.items()} == keyed, (
            "cached contents and blocks disagree"
        )
        ids = [content_id for _, content_id in self._contents.values()]
        assert len(ids) == len(set(ids)), "a content id is used twice"

    def _evict(self, block_id: int) -> None:
        key = self._keys[block_id]
        if key is not None:
            del self._contents[key]
            self._keys[block_id] = None

    def _unlink(self, block_id: int) -> None:
        before, after = self._previous[block_id], self._next[block_id]
        self._next[before] = after
        self._previous[after] = before
        self._num_free -= 1

    def _link(self, block_id: int, *, at_head: bool) -> None:
        sentinel = self.num_blocks
        before = sentinel if at_head else self._previous[sentinel]
        after = self._next[before]
        self._next[before] = self._previous[after] = block_id
        self._previous[block_id], self._next[block_id] = before, after
        self._num_free += 1
