"""The planner, held to what every plan must be whatever the load."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.moe.expert_key import ExpertKey
from services.moe.router.placement import Homes, even_homes
from services.moe.router.planner import NoPlacementError, max_over_mean, plan, shard_loads


def keys_of(num_layers: int, num_experts: int) -> list[ExpertKey]:
    return [ExpertKey(layer, e) for layer in range(num_layers) for e in range(num_experts)]


def held(homes: Homes, shard: str) -> int:
    return sum(shard in shards for shards in homes.values())


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[ExpertKey, float], dict[str, int], Homes]:
    """Loads of all experts, places of the shards, and a placement that fits."""
    keys = keys_of(draw(st.integers(1, 4)), draw(st.integers(1, 8)))
    counts = st.integers(0, 10_000)
    loads = {key: float(draw(counts)) for key in keys}
    num_shards = draw(st.integers(1, 5))
    least = -(-len(keys) // num_shards)
    places = {f"shard-{i}": draw(st.integers(least, 2 * least + 2)) for i in range(num_shards)}
    return loads, places, even_homes(keys, places)


@given(situations())
def test_plan_gives_every_expert_a_home_within_the_places_and_is_never_less_even(
    situation: tuple[dict[ExpertKey, float], dict[str, int], Homes],
) -> None:
    loads, places, current = situation
    homes = plan(loads, places, current)
    assert homes.keys() == loads.keys()
    for shards in homes.values():
        assert shards
        assert len(set(shards)) == len(shards)
        assert set(shards) <= places.keys()
    for shard, most in places.items():
        assert held(homes, shard) <= most
    names = list(places)
    before = max_over_mean(shard_loads(current, loads, names))
    after = max_over_mean(shard_loads(homes, loads, names))
    assert after <= before
    assert sum(shard_loads(homes, loads, names)) == pytest.approx(sum(loads.values()))


@given(situations())
def test_plan_is_the_same_for_the_same_load(
    situation: tuple[dict[ExpertKey, float], dict[str, int], Homes],
) -> None:
    loads, places, current = situation
    assert plan(loads, places, current) == plan(loads, places, current)


@given(situations(), st.data())
def test_plan_brings_experts_of_a_lost_shard_home(
    situation: tuple[dict[ExpertKey, float], dict[str, int], Homes], data: st.DataObject
) -> None:
    loads, places, current = situation
    lost = data.draw(st.sampled_from(sorted(places)))
    left = {shard: count for shard, count in places.items() if shard != lost}
    if sum(left.values()) < len(loads):
        with pytest.raises(NoPlacementError, match="experts need as many places"):
            plan(loads, left, current)
        return
    homes = plan(loads, left, current)
    assert all(shards and lost not in shards for shards in homes.values())


def test_plan_evens_out_a_zipf_load_by_replicas_of_the_hot_experts() -> None:
    keys = keys_of(4, 8)
    zipf = 1.0 / np.arange(1, 9) ** 1.5
    loads = {key: float(10_000 * zipf[key.expert]) for key in keys}
    # The worst that can be: the hot experts of all layers on one shard.
    current = {key: (f"shard-{key.expert // 2}",) for key in keys}
    places = {f"shard-{i}": 12 for i in range(4)}
    assert max_over_mean(shard_loads(current, loads, list(places))) >= 2.5
    homes = plan(loads, places, current)
    assert max_over_mean(shard_loads(homes, loads, list(places))) <= 1.1
    hottest = ExpertKey(0, 0)
    assert len(homes[hottest]) > 1


def test_plan_evens_out_each_layer_too() -> None:
    """A layer waits for its slowest shard: even sums over layers are not enough."""
    keys = keys_of(4, 8)
    loads = dict.fromkeys(keys, 100.0)
    current = {key: (f"shard-{key.layer}",) for key in keys}
    places = {f"shard-{i}": 8 for i in range(4)}
    loads[ExpertKey(0, 0)] = 300.0
    homes = plan(loads, places, current)
    for layer in range(4):
        of_layer = {key: load for key, load in loads.items() if key.layer == layer}
        assert max_over_mean(shard_loads(homes, of_layer, list(places))) <= 1.5


def test_plan_keeps_what_is_even() -> None:
    keys = keys_of(2, 4)
    places = {"a": 5, "b": 5}
    current = even_homes(keys, places)
    assert plan(dict.fromkeys(keys, 10.0), places, current) == current


def test_plan_without_load_keeps_the_placement() -> None:
    keys = keys_of(2, 4)
    places = {"a": 5, "b": 5}
    current = even_homes(keys, places)
    assert plan(dict.fromkeys(keys, 0.0), places, current) == current


def test_plan_refuses_what_does_not_fit() -> None:
    keys = keys_of(2, 4)
    with pytest.raises(NoPlacementError, match="8 experts need as many places; the shards have 6"):
        plan(dict.fromkeys(keys, 1.0), {"a": 3, "b": 3}, dict.fromkeys(keys, ("a",)))
