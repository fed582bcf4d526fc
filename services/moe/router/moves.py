"""From one placement to another, in rounds that never need more room than a shard has.

    round:   load the adds ── switch ── drop what has its new homes

All experts of a model are equally large, so room is counted in experts. A shard that still has
something to give up keeps one place free, so that others' experts can pass through: only when no
move is possible otherwise is such a place used, for one expert, whose old home then has the free
place. Knows nothing of loads, calls or shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from services.moe.expert_key import ExpertKey
from services.moe.router.placement import Homes

__all__ = ["Move", "NoRoomError", "Round", "changes", "rounds"]


class NoRoomError(Exception):
    """Experts cannot be moved: no shard has a free place to begin with."""


class Move(NamedTuple):
    """A shard takes an expert up, or gives it up."""

    key: ExpertKey
    shard: str


@dataclass(frozen=True, slots=True)
class Round:
    """`adds` are loaded at once; `homes` hold after them and after `drops`."""

    adds: tuple[Move, ...]
    drops: tuple[Move, ...]
    homes: Homes


def changes(before: Homes, after: Homes) -> tuple[list[Move], list[Move]]:
    """What is taken up and what is given up, in the order of the experts."""
    adds = _difference(after, before)
    drops = _difference(before, after)
    return adds, drops


def rounds(before: Homes, after: Homes, places: Mapping[str, int]) -> Iterator[Round]:
    """The rounds that lead from `before` to `after`; the last one's homes are `after`.

    `places` says how many experts each shard has room for. Raises `NoRoomError`.
    """
    adds, drops = changes(before, after)
    now = {key: list(shards) for key, shards in before.items()}
    free = {shard: places[shard] for shard in places}
    for shards in before.values():
        for shard in shards:
            free[shard] = free.get(shard, 0) - 1
    while adds or drops:
        chosen = set(_fitting(adds, drops, free) or _through_a_reserve(adds, drops, free))
        adds = [move for move in adds if move not in chosen]
        arriving = {move.key for move in adds}
        leaving = [move for move in drops if move.key not in arriving]
        if not chosen and not leaving:
            raise NoRoomError("no shard has a free place for experts to move through")
        drops = [move for move in drops if move.key in arriving]
        for key, shard in chosen:
            now[key].append(shard)
            free[shard] -= 1
        for key, shard in leaving:
            now[key].remove(shard)
            free[shard] += 1
        homes = after if not adds and not drops else {k: tuple(v) for k, v in now.items()}
        yield Round(tuple(sorted(chosen)), tuple(leaving), homes)


def _fitting(adds: Iterable[Move], drops: Iterable[Move], free: Mapping[str, int]) -> list[Move]:
    """The adds for which there is room beside the places kept free."""
    giving = {move.shard for move in drops}
    room = {shard: count - (shard in giving) for shard, count in free.items()}
    chosen = []
    for move in adds:
        if room.get(move.shard, 0) > 0:
            room[move.shard] -= 1
            chosen.append(move)
    return chosen


def _through_a_reserve(
    adds: Iterable[Move], drops: Iterable[Move], free: Mapping[str, int]
) -> list[Move]:
    """One add into a place kept free: best, one whose old home has no place left."""
    possible = [move for move in adds if free.get(move.shard, 0) > 0]
    if not possible:
        return []
    leaves: dict[ExpertKey, list[str]] = {}
    for move in drops:
        leaves.setdefault(move.key, []).append(move.shard)

    def scarcest(move: Move) -> tuple[int, Move]:
        homes = leaves.get(move.key, [])
        return (min((free[shard] for shard in homes), default=max(free.values()) + 1), move)

    return [min(possible, key=scarcest)]


def _difference(these: Homes, those: Homes) -> list[Move]:
    return [
        Move(key, shard)
        for key in sorted(these)
        for shard in these[key]
        if shard not in those.get(key, ())
    ]
