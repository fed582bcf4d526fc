"""Plans where experts live from how many tokens went to each.

Greedy bin packing with replication of hot experts, as DeepSeek's EPLB does it (DeepSeek-AI 2024,
DeepSeek-V3, arXiv:2412.19437, section 3.4): the expert with the most tokens per copy gets another
copy, until the shards can be even; then all copies, the heaviest first, go each to the shard that
has least. A copy's tokens are an equal part of its expert's. A layer's answer waits for its slowest
shard, so a plan is chosen by how even the load is within the layers and over all of them.

A pure function of numbers: knows nothing of calls, clocks or shards' memory in bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.moe.expert_key import ExpertKey
from services.moe.router.placement import Homes

__all__ = [
    "LoadByKey",
    "NoPlacementError",
    "layers_max_over_mean",
    "max_over_mean",
    "plan",
    "shard_loads",
]

LoadByKey = Mapping[ExpertKey, float]  # tokens of every expert of the model

# Even enough: copies beyond it cost memory and gain nothing that can be measured.
_EVEN = 1.05
# A plan with more copies is taken only where it is so much more even.
_GAIN = 0.02
# Of a shard's mean load: below it, an expert stays where it is rather than move.
_STICKINESS = 0.02


class NoPlacementError(Exception):
    """The experts do not fit into the shards: some would be without a home."""


@dataclass(slots=True)
class _Bins:
    """Shards being filled. Arrays are by shard, [S] or [num_layers, S]."""

    names: list[str]
    free: npt.NDArray[np.int64]
    of_layer: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]


def shard_loads(homes: Homes, loads: LoadByKey, shards: list[str]) -> list[float]:
    """Tokens that fall on each shard, those of a copied expert in equal parts."""
    found = dict.fromkeys(shards, 0.0)
    for key, load in loads.items():
        for shard in homes[key]:
            if shard in found:
                found[shard] += load / len(homes[key])
    return list(found.values())


def max_over_mean(loads: list[float] | npt.NDArray[np.float64]) -> float:
    """1 is even; 0 where there is no load."""
    total = float(np.sum(loads))
    return float(np.max(loads)) * len(loads) / total if total else 0.0


def layers_max_over_mean(homes: Homes, loads: LoadByKey, shards: list[str]) -> float:
    """The busiest shard over the mean within each layer, the layers weighted by their tokens: what
    waiting for the slowest shard costs. At least `max_over_mean` of all layers together.
    """
    found: defaultdict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(shards, 0.0))
    for key, load in loads.items():
        of_layer = found[key.layer]
        for shard in homes[key]:
            if shard in of_layer:
                of_layer[shard] += load / len(homes[key])
    total = sum(loads.values())
    busiest = sum(max(of_layer.values()) for of_layer in found.values())
    return busiest * len(shards) / total if total else 0.0


def plan(loads: LoadByKey, places: Mapping[str, int], current: Homes) -> Homes:
    """The homes of every expert: at most `places[shard]` on a shard, each at least one.

    `current` is kept where it fits and nothing more even is found; its homes on shards that
    `places` does not name count as lost. Raises `NoPlacementError`.
    """
    names = list(places)
    spare = sum(places.values()) - len(loads)
    if spare < 0:
        raise NoPlacementError(
            f"{len(loads)} experts need as many places; the shards have {len(loads) + spare}"
        )

    def unevenness(homes: Homes) -> tuple[float, float]:
        whole = max_over_mean(shard_loads(homes, loads, names))
        return whole, layers_max_over_mean(homes, loads, names)

    best = _kept(current, places)
    most, layers = (np.inf, np.inf) if best is None else unevenness(best)
    least = most + layers
    for num_copies in _growing(spare, len(loads) * (len(names) - 1)):
        if layers <= _EVEN:
            break
        homes = _packed(loads, places, num_copies, current)
        whole, of_layers = unevenness(homes)
        if whole <= most and whole + of_layers < least * (1 - _GAIN):
            best, layers, least = homes, of_layers, whole + of_layers
    assert best is not None
    return best


def _kept(current: Homes, places: Mapping[str, int]) -> Homes | None:
    """What is left of the current placement, if it is a placement still."""
    kept = {key: tuple(s for s in shards if s in places) for key, shards in current.items()}
    held = dict.fromkeys(places, 0)
    for shards in kept.values():
        for shard in shards:
            held[shard] += 1
    fits = all(held[shard] <= places[shard] for shard in places)
    return kept if fits and all(kept.values()) else None


def _growing(spare: int, useful: int) -> Iterator[int]:
    """Numbers of additional copies to try: few first, all that there is room for last."""
    most = min(spare, useful)
    tried = 0
    while tried < most:
        yield tried
        tried = max(tried + 1, tried * 3 // 2)
    yield most


def _packed(
    loads: LoadByKey, places: Mapping[str, int], num_copies: int, current: Homes
) -> dict[ExpertKey, tuple[str, ...]]:
    copies = _copies(loads, num_copies, len(places))
    layers = {layer: row for row, layer in enumerate(sorted({key.layer for key in loads}))}
    names = list(places)
    bins = _Bins(
        names,
        np.array([places[name] for name in names], dtype=np.int64),
        np.zeros((len(layers), len(names))),
        np.zeros(len(names)),
    )
    mean_total = max(sum(loads.values()) / len(names), 1e-9)
    mean_of_layer = np.zeros(len(layers))
    for key, load in loads.items():
        mean_of_layer[layers[key.layer]] += load / len(names)
    homes: dict[ExpertKey, tuple[str, ...]] = dict.fromkeys(loads, ())
    # Equal loads in the order of the keys, so that a plan is the same each time.
    for key in sorted(loads, key=lambda key: (-loads[key] / copies[key], key)):
        for _ in range(copies[key]):
            row = layers[key.layer]
            cost = bins.total / mean_total + bins.of_layer[row] / max(mean_of_layer[row], 1e-9)
            cost -= _STICKINESS * np.array([name in current.get(key, ()) for name in names])
            taken = np.array([name in homes[key] for name in names])
            cost[(bins.free < 1) | taken] = np.inf
            chosen = int(np.argmin(cost))
            if np.isinf(cost[chosen]):
                break  # of a copied expert, whose other copies have all the shards with room
            homes[key] += (names[chosen],)
            share = loads[key] / copies[key]
            bins.free[chosen] -= 1
            bins.of_layer[row, chosen] += share
            bins.total[chosen] += share
    return homes


def _copies(loads: LoadByKey, num_more: int, num_shards: int) -> dict[ExpertKey, int]:
    """How many copies each expert gets: one, and more for those with the most tokens per copy."""
    copies = dict.fromkeys(loads, 1)
    keys = sorted(loads)
    per_copy = np.array([loads[key] for key in keys], dtype=np.float64)
    for _ in range(num_more):
        hottest = int(np.argmax(per_copy))
        if per_copy[hottest] <= 0:
            break
        key = keys[hottest]
        copies[key] += 1
        full = copies[key] == num_shards
        per_copy[hottest] = -1.0 if full else loads[key] / copies[key]
    return copies
