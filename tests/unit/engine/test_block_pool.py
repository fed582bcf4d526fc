"""The block pool: allocation, sharing, the prefix cache and eviction, by example and at random."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from services.engine.block_pool import BlockPool

SIZE = 4


def fill(pool: BlockPool, token_ids: list[int], salt: str = "") -> list[int]:
    """Allocates and registers blocks for all full blocks of `token_ids`."""
    block_ids = pool.allocate(len(token_ids) // SIZE)
    assert block_ids is not None
    parent: int | str = salt
    for index, block_id in enumerate(block_ids):
        parent = pool.register(
            block_id, (parent, tuple(token_ids[index * SIZE : (index + 1) * SIZE]))
        )
    return block_ids


def matched(pool: BlockPool, token_ids: list[int], salt: str = "") -> list[int]:
    return pool.match(token_ids, salt, len(token_ids) // SIZE).block_ids


def test_allocate_returns_distinct_blocks_until_empty() -> None:
    pool = BlockPool(5, SIZE)
    first = pool.allocate(3)
    assert first is not None
    assert pool.allocate(3) is None
    assert pool.num_free == 2  # a refused allocation takes nothing
    second = pool.allocate(2)
    assert second is not None
    assert sorted(first + second) == [0, 1, 2, 3, 4]
    pool.check_integrity()


def test_allocate_nothing_succeeds_when_empty() -> None:
    pool = BlockPool(1, SIZE)
    assert pool.allocate(1) == [0]
    assert pool.allocate(0) == []


def test_free_twice_is_caught() -> None:
    pool = BlockPool(2, SIZE)
    block_ids = pool.allocate(1)
    assert block_ids is not None
    pool.free(block_ids)
    with pytest.raises(AssertionError, match="free already"):
        pool.free(block_ids)


def test_forked_block_is_free_only_after_both_let_go() -> None:
    pool = BlockPool(2, SIZE)
    block_ids = pool.allocate(2)
    assert block_ids is not None
    pool.acquire(block_ids)
    pool.free(block_ids)
    assert pool.num_free == 0
    pool.free(block_ids)
    assert pool.num_free == 2
    pool.check_integrity()


def test_match_finds_the_longest_prefix() -> None:
    pool = BlockPool(8, SIZE)
    held = fill(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    assert matched(pool, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]) == held[:2]
    assert matched(pool, [1, 2, 3, 4]) == held[:1]
    assert matched(pool, [5, 6, 7, 8]) == []  # the same block after nothing is another content
    assert pool.match([1, 2, 3, 4, 5, 6, 7, 8], "", 1).block_ids == held[:1]


def test_match_finds_freed_blocks_until_they_are_handed_out() -> None:
    pool = BlockPool(3, SIZE)
    held = fill(pool, list(range(8)))
    pool.free(held)
    assert pool.num_free == 3
    assert matched(pool, list(range(8))) == held
    pool.allocate(1)  # the block that was never used
    assert matched(pool, list(range(8))) == held
    pool.allocate(1)  # evicts the tail first
    assert matched(pool, list(range(8))) == held[:1]
    pool.allocate(1)
    assert matched(pool, list(range(8))) == []
    assert pool.num_cached == 0
    pool.check_integrity()


def test_eviction_takes_the_least_recently_used_first() -> None:
    pool = BlockPool(4, SIZE)
    old, new = list(range(8)), list(range(100, 108))
    old_blocks, new_blocks = fill(pool, old), fill(pool, new)
    pool.free(old_blocks)
    pool.free(new_blocks)
    pool.acquire(old_blocks)  # used again: now the newest
    pool.free(old_blocks)
    pool.allocate(2)
    assert matched(pool, old) == old_blocks
    assert matched(pool, new) == []


def test_blocks_without_content_are_handed_out_before_cached_ones() -> None:
    pool = BlockPool(3, SIZE)
    cached = fill(pool, list(range(4)))
    pool.free(cached)
    partial = pool.allocate(2)
    assert partial is not None
    pool.free(partial)  # later than the cached one, yet without content
    assert pool.allocate(2) is not None
    assert matched(pool, list(range(4))) == cached


def test_salts_do_not_share_blocks() -> None:
    pool = BlockPool(4, SIZE)
    fill(pool, list(range(8)), salt="a")
    assert matched(pool, list(range(8)), salt="b") == []
    assert len(matched(pool, list(range(8)), salt="a")) == 2


def test_same_content_twice_keeps_the_first_and_one_chain() -> None:
    pool = BlockPool(4, SIZE)
    first = fill(pool, list(range(4)))
    second = pool.allocate(1)
    assert second is not None
    parent = pool.register(second[0], ("", tuple(range(4))))
    assert pool.match(list(range(4)), "", 1).content_ids == [parent]
    assert matched(pool, list(range(4))) == first
    pool.check_integrity()


class Colliding(int):
    """A token id whose hash equals that of every other."""

    def __hash__(self) -> int:
        return 7


def test_hash_collision_never_gives_another_prefix() -> None:
    pool = BlockPool(6, SIZE)
    ours = [Colliding(token) for token in range(8)]
    theirs = [Colliding(token + 50) for token in range(4)] + ours[4:]
    assert hash(tuple(ours[:SIZE])) == hash(tuple(theirs[:SIZE]))
    held = fill(pool, ours)
    assert matched(pool, theirs) == []
    # Not even when the first block is gone and theirs stands in its place.
    pool.free(held)
    pool.acquire(held[1:])
    pool.allocate(5)
    pool.check_integrity()
    pool.free([held[0]])
    first = fill(pool, theirs[:SIZE])
    assert matched(pool, theirs) == first


def test_clear_cache_forgets_prefixes_and_keeps_blocks() -> None:
    pool = BlockPool(2, SIZE)
    held = fill(pool, list(range(8)))
    pool.clear_cache()
    assert matched(pool, list(range(8))) == []
    assert pool.num_free == 0
    pool.free(held)
    pool.check_integrity()


NUM_BLOCKS = 12


class PoolMachine(RuleBasedStateMachine):
    """Random use of the pool, beside a model that keeps every block's content in plain sight."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, SIZE)
        # Each holder: its blocks, and the tokens they hold (full blocks only).
        self.holders: list[tuple[list[int], list[int]]] = []
        self.contents: dict[int, list[int]] = {}  # block id -> all tokens up to its end

    def tokens(self, blocks: list[int]) -> list[int]:
        return [block * 10 + offset for block in blocks for offset in range(SIZE)]

    @initialize()
    def start(self) -> None:
        self.pool.check_integrity()

    @rule(blocks=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def admit(self, blocks: list[int]) -> None:
        """What a scheduler does: match, acquire, allocate, compute, register."""
        token_ids = self.tokens(blocks)
        prefix = self.pool.match(token_ids, "", len(blocks))
        for index, block_id in enumerate(prefix.block_ids):
            assert self.contents[block_id] == token_ids[: (index + 1) * SIZE]
        self.pool.acquire(prefix.block_ids)
        rest = self.pool.allocate(len(blocks) - len(prefix.block_ids))
        if rest is None:
            self.pool.free(prefix.block_ids)
            return
        block_ids = prefix.block_ids + rest
        parent: int | str = prefix.content_ids[-1] if prefix.content_ids else ""
        for index in range(len(prefix.block_ids), len(blocks)):
            tokens = tuple(token_ids[index * SIZE : (index + 1) * SIZE])
            parent = self.pool.register(block_ids[index], (parent, tokens))
            self.contents[block_ids[index]] = token_ids[: (index + 1) * SIZE]
        self.holders.append((block_ids, token_ids))

    @rule()
    def allocate_scratch(self) -> None:
        before = self.pool.num_free
        block_ids = self.pool.allocate(2)
        assert (block_ids is None) == (before < 2)
        if block_ids is not None:
            self.holders.append((block_ids, []))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        block_ids, token_ids = data.draw(st.sampled_from(self.holders))
        self.pool.acquire(block_ids)
        self.holders.append((block_ids.copy(), token_ids))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.holders) - 1))
        block_ids, _ = self.holders.pop(index)
        self.pool.free(block_ids)

    @invariant()
    def integrity(self) -> None:
        self.pool.check_integrity()
        counts = [0] * NUM_BLOCKS
        for block_ids, token_ids in self.holders:
            for block_id in block_ids:
                counts[block_id] += 1
            for index in range(len(token_ids) // SIZE):  # nobody else wrote into a held block
                assert self.contents[block_ids[index]] == token_ids[: (index + 1) * SIZE]
        assert counts == [self.pool.ref_count(block_id) for block_id in range(NUM_BLOCKS)]

    def teardown(self) -> None:
        for block_ids, _ in self.holders:
            self.pool.free(block_ids)
        assert self.pool.num_free == NUM_BLOCKS
        self.pool.check_integrity()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
