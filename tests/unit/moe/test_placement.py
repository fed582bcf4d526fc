from __future__ import annotations

import asyncio

import pytest

from services.moe.expert_key import ExpertKey
from services.moe.router.placement import Placement, PlacementTable, even_homes, held_by

X, Y = ExpertKey(0, 0), ExpertKey(0, 1)


@pytest.mark.parametrize("homes", [(), ("a", "a")])
def test_a_placement_gives_every_expert_a_home_once(homes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expert 0 of layer 0: expected at least one home"):
        Placement(1, {X: homes})


def test_even_homes_spread_each_layer() -> None:
    keys = [ExpertKey(layer, e) for layer in (1, 3) for e in range(5)]
    homes = even_homes(keys, {"a": 5, "b": 5})
    for layer in (1, 3):
        held = [sum(key.layer == layer for key in held_by(homes, shard)) for shard in "ab"]
        assert sorted(held) == [2, 3]
    assert [len(held_by(homes, shard)) for shard in "ab"] == [5, 5]


def test_even_homes_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="expert 1 of layer 0 has no home: all 1 places are taken"):
        even_homes([X, Y], {"a": 1})


async def test_settled_waits_for_those_who_follow_the_old() -> None:
    table = PlacementTable({X: ("a",)})
    with table.follow() as old:
        assert table.switch({X: ("b",)}).version == 2
        settled = asyncio.create_task(table.settled())
        await asyncio.sleep(0)
        assert old.placement.homes[X] == ("a",)
        with table.follow() as new:
            assert new.placement.version == 2
            await asyncio.sleep(0)
            assert not settled.done()
        await asyncio.sleep(0)
        assert not settled.done()
    await settled


async def test_who_renews_follows_the_new() -> None:
    table = PlacementTable({X: ("a",)})
    with table.follow() as follower:
        table.switch({X: ("b",)})
        assert follower.renew().homes[X] == ("b",)
        await table.settled()
