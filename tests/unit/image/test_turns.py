"""Sizes take turns: equal shares of the work, calls within their limit, nobody starves."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.image.loop.turns import Turns

SIZES = ((4, 4), (4, 8), (8, 8), (32, 32))


def test_pictures_of_one_size_share_every_call() -> None:
    turns = Turns(max_pixels=1000)
    for slot_id in range(5):
        turns.join(slot_id, (4, 4), 2)
    assert [turns.next_call() for _ in range(3)] == [[0, 1, 2, 3, 4]] * 3


def test_a_small_picture_takes_more_steps_than_large_ones_beside_it() -> None:
    turns = Turns(max_pixels=10**6)
    turns.join(0, (4, 4), 2)  # 16 latent pixels
    for slot_id in range(1, 6):
        turns.join(slot_id, (8, 8), 2)  # 64
    calls = [tuple(turns.next_call()) for _ in range(50)]
    assert Counter(calls) == {(0,): 40, (1, 2, 3, 4, 5): 10}


def test_a_newcomer_is_neither_owed_the_past_nor_made_to_wait() -> None:
    turns = Turns(max_pixels=10**6)
    turns.join(0, (4, 4), 1)
    for _ in range(1000):
        turns.next_call()
    turns.join(1, (4, 8), 1)
    calls = Counter(turns.next_call()[0] for _ in range(30))
    assert calls[0] == 20
    assert calls[1] == 10


def test_pictures_beyond_the_calls_limit_take_turns() -> None:
    turns = Turns(max_pixels=6 * 16)  # three guided pictures
    for slot_id in range(5):
        turns.join(slot_id, (4, 4), 2)
    counts = Counter(slot_id for _ in range(100) for slot_id in turns.next_call())
    assert set(counts.values()) == {60}


def test_a_picture_larger_than_the_limit_goes_alone() -> None:
    turns = Turns(max_pixels=16)
    turns.join(0, (8, 8), 2)
    turns.join(1, (8, 8), 2)
    assert [turns.next_call() for _ in range(4)] == [[0], [1], [0], [1]]


def test_nobody_there_is_no_call() -> None:
    turns = Turns(max_pixels=16)
    turns.join(0, (4, 4), 1)
    turns.leave(0)
    assert turns.next_call() == []


@given(
    st.integers(0, 2**32),
    st.integers(1, 5000),
    st.integers(1, 12),
)
def test_every_picture_steps_within_bounded_calls_whoever_comes_and_goes(
    seed: int, max_pixels: int, max_running: int
) -> None:
    """Between two steps of a picture, the others together take no more than equal shares allow."""
    rng = random.Random(seed)
    turns = Turns(max_pixels)
    here: dict[int, tuple[tuple[int, int], int]] = {}
    waited: dict[int, int] = {}
    next_id = 0
    # While a picture of 1024 waits, each other place may take 1024 / 16 steps, and one more.
    most_calls = (max_running - 1) * (32 * 32 // 16 + 1) + 1
    for _ in range(300):
        if len(here) < max_running and rng.random() < 0.4:
            size, rows = rng.choice(SIZES), rng.choice((1, 2))
            turns.join(next_id, size, rows)
            here[next_id], waited[next_id] = (size, rows), 0
            next_id += 1
        elif here and rng.random() < 0.2:
            gone = rng.choice(list(here))
            turns.leave(gone)
            del here[gone], waited[gone]
        call = turns.next_call()
        assert len(turns) == len(here)
        assert bool(call) == bool(here)
        assert call == sorted(set(call))
        if call:
            assert len({here[slot_id][0] for slot_id in call}) == 1
            (height, width), _ = here[call[0]]
            rows = sum(here[slot_id][1] for slot_id in call)
            assert len(call) == 1 or rows * height * width <= max_pixels
        for slot_id in waited:
            waited[slot_id] = 0 if slot_id in call else waited[slot_id] + 1
            assert waited[slot_id] <= most_calls
