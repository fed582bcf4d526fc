"""Which shard holds which expert: immutable snapshots, and the table of the one that holds now.

    calls:   follow(v1) ─────────── done          follow(v2) ──
    table:   v1                  switch(v2) ── settled(): no call follows v1 any more ── drop

A call follows one snapshot from its plan to its last row. Who moves experts loads them at their new
homes, switches, waits until the old snapshot is settled, and only then drops them from their old
homes. Knows nothing of calls, shards or serving.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.moe.expert_key import ExpertKey

__all__ = ["Follower", "Homes", "Placement", "PlacementTable", "even_homes", "held_by"]

Homes = Mapping[ExpertKey, tuple[str, ...]]  # the shards of each expert, each shard once


@dataclass(frozen=True, slots=True)
class Placement:
    """A snapshot. Every expert has at least one home."""

    version: int
    homes: Homes

    def __post_init__(self) -> None:
        for key, shards in self.homes.items():
            if not shards or len(set(shards)) != len(shards):
                raise ValueError(f"{key}: expected at least one home, each once, got {shards}")

    def held_by(self, shard: str) -> frozenset[ExpertKey]:
        """What a shard has to hold."""
        return frozenset(held_by(self.homes, shard))


def held_by(homes: Homes, shard: str) -> set[ExpertKey]:
    """The experts that live on a shard."""
    return {key for key, shards in homes.items() if shard in shards}


def even_homes(keys: Iterable[ExpertKey], shards: Mapping[str, int]) -> Homes:
    """One home each, where nothing is known of the load: dealt out in turn, layer by layer.

    `shards` says how many experts each has room for. Raises `ValueError` where they do not fit.
    """
    room = dict(shards)
    homes: dict[ExpertKey, tuple[str, ...]] = {}
    held_of_layer: Counter[tuple[str, int]] = Counter()
    held: Counter[str] = Counter()
    for key in keys:
        free = [shard for shard in room if room[shard] > 0]
        if not free:
            raise ValueError(f"{key} has no home: all {sum(shards.values())} places are taken")
        layer = key.layer
        chosen = min(free, key=lambda shard: (held_of_layer[shard, layer], held[shard]))
        homes[key] = (chosen,)
        room[chosen] -= 1
        held[chosen] += 1
        held_of_layer[chosen, layer] += 1
    return homes


class PlacementTable:
    """The current snapshot, and how many calls follow each. Used from one event loop."""

    def __init__(self, homes: Homes) -> None:
        self._current = Placement(1, dict(homes))
        self._followers: Counter[int] = Counter()
        self._left = asyncio.Event()

    @property
    def current(self) -> Placement:
        return self._current

    def switch(self, homes: Homes) -> Placement:
        """Calls that begin from now on follow these. Raises `ValueError`, see `Placement`."""
        self._current = Placement(self._current.version + 1, dict(homes))
        return self._current

    def follow(self) -> Follower:
        """The current snapshot, counted as followed until it is left or renewed."""
        return Follower(self)

    def entered(self, version: int) -> None:
        """For `Follower`: one more follows that snapshot."""
        self._followers[version] += 1

    def left(self, version: int) -> None:
        """For `Follower`: one less."""
        self._followers[version] -= 1
        if not self._followers[version]:
            del self._followers[version]
            self._left.set()

    async def settled(self) -> None:
        """Returns once every call follows the current snapshot."""
        while any(version != self._current.version for version in self._followers):
            self._left.clear()
            await self._left.wait()


class Follower:
    """One call's snapshot. A context manager; within it `placement` does not change by itself."""

    def __init__(self, table: PlacementTable) -> None:
        self._table = table
        self.placement = table.current

    def __enter__(self) -> Follower:
        self._table.entered(self.placement.version)
        return self

    def __exit__(self, *_: object) -> None:
        self._table.left(self.placement.version)

    def renew(self) -> Placement:
        """Follows the current snapshot from now on."""
        self._table.left(self.placement.version)
        self.placement = self._table.current
        self._table.entered(self.placement.version)
        return self.placement
