"""Moves: every round leaves a placement that holds, within the room of every shard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.moe.expert_key import ExpertKey
from services.moe.router.moves import Move, NoRoomError, changes, rounds
from services.moe.router.placement import Homes

SHARDS = ["a", "b", "c", "d"]


@st.composite
def placements(draw: st.DrawFn) -> tuple[Homes, Homes, dict[str, int]]:
    """Two placements, and room for one expert more than the fuller of the two on each shard."""
    keys = [ExpertKey(0, e) for e in range(draw(st.integers(1, 10)))]
    shards = SHARDS[: draw(st.integers(1, len(SHARDS)))]
    some = st.lists(st.sampled_from(shards), min_size=1, max_size=3, unique=True).map(tuple)
    before: Homes = {key: draw(some) for key in keys}
    after: Homes = {key: draw(some) for key in keys}
    held = {
        shard: max(sum(shard in h for h in homes.values()) for homes in (before, after))
        for shard in shards
    }
    return before, after, {shard: count + 1 for shard, count in held.items()}


@given(placements())
def test_rounds_lead_there_and_never_need_more_room(
    given_: tuple[Homes, Homes, dict[str, int]],
) -> None:
    before, after, room = given_
    now = {key: set(shards) for key, shards in before.items()}
    for step in rounds(before, after, room):
        for key, shard in step.adds:
            assert shard not in now[key]
            now[key].add(shard)
        for shard, most in room.items():
            assert sum(shard in homes for homes in now.values()) <= most
        for key, shard in step.drops:
            now[key].remove(shard)
        assert all(now.values()), "an expert is without a home"
        assert {key: set(homes) for key, homes in step.homes.items()} == now
    assert now == {key: set(shards) for key, shards in after.items()}


@given(placements())
def test_rounds_move_nothing_that_stays(given_: tuple[Homes, Homes, dict[str, int]]) -> None:
    before, after, room = given_
    steps = list(rounds(before, after, room))
    adds = sorted(move for step in steps for move in step.adds)
    drops = sorted(move for step in steps for move in step.drops)
    assert (adds, drops) == tuple(map(sorted, changes(before, after)))


def test_two_experts_change_places_through_one_free_place_each() -> None:
    x, y = ExpertKey(0, 0), ExpertKey(0, 1)
    steps = list(rounds({x: ("a",), y: ("b",)}, {x: ("b",), y: ("a",)}, {"a": 2, "b": 2}))
    assert [len(step.adds) for step in steps] == [1, 1]
    assert steps[-1].homes == {x: ("b",), y: ("a",)}


def test_rounds_without_any_free_place_are_refused() -> None:
    x, y = ExpertKey(0, 0), ExpertKey(0, 1)
    with pytest.raises(NoRoomError, match="no shard has a free place"):
        list(rounds({x: ("a",), y: ("b",)}, {x: ("b",), y: ("a",)}, {"a": 1, "b": 1}))


def test_replicas_are_given_up_in_one_round() -> None:
    x = ExpertKey(0, 0)
    (step,) = rounds({x: ("a", "b")}, {x: ("b",)}, {"a": 1, "b": 1})
    assert (step.adds, step.drops) == ((), (Move(x, "a"),))
