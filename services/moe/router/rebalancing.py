"""Moves experts so that the load of the shards evens out, while calls go on.

    plan ── for each round:  load at the new homes ── switch ── wait for calls that follow the old
            placement ── drop at the old homes

No call ever follows a placement whose experts are not there. Leaving in the middle, for whatever
reason, leaves a placement that holds; what a shard has too much is dropped by whoever looks after
it. Knows nothing of gRPC or tensors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from services.moe.expert_key import ExpertKey
from services.moe.router.fleet import Fleet, Shard
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.moves import Move, NoRoomError, Round, changes, rounds
from services.moe.router.placement import Homes
from services.moe.router.planner import (
    LoadByKey,
    NoPlacementError,
    layers_max_over_mean,
    max_over_mean,
    plan,
    shard_loads,
)
from services.runtime.errors import DeadlineExceeded, DependencyDown, InvalidRequest, OrreryError
from services.runtime.run_all import run_all

__all__ = ["Balance", "Rebalanced", "Rebalancer", "places_of"]

_LOG = logging.getLogger("orrery.moe.rebalance")
_RETRY_AFTER_S = 1.0

_Change = Callable[[Shard, frozenset[ExpertKey]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Balance:
    """How a load falls on the shards, in the order of the configuration."""

    max_over_mean: float
    layers_max_over_mean: float
    rows: list[float]


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """What was, or would be, done."""

    version: int
    applied: bool
    before: Balance
    after: Balance
    adds: list[Move]
    drops: list[Move]


def places_of(max_bytes: Mapping[str, int], bytes_per_expert: int) -> dict[str, int]:
    """How many experts a placement may give each shard: one less than it has room for, so that
    others can move through it.
    """
    return {shard: max(0, limit // bytes_per_expert - 1) for shard, limit in max_bytes.items()}


class Rebalancer:
    """Of one fleet: one rebalance at a time."""

    def __init__(
        self,
        fleet: Fleet,
        load: LoadWindow,
        layers: tuple[int, ...],
        bytes_per_expert: int,
        metrics: RouterMetrics,
    ) -> None:
        self._fleet = fleet
        self._load = load
        self._layers = layers
        self._bytes_per_expert = bytes_per_expert
        self._metrics = metrics

    async def rebalance(
        self, max_shard_bytes: int | None, *, dry_run: bool, deadline_s: float
    ) -> Rebalanced:
        """Plans from the load of the window, over the shards that answer; applies unless told not.

        Raises `InvalidRequest` where the experts do not fit into `max_shard_bytes`,
        `DependencyDown` where they do not fit into the shards that answer, where one has been lost
        a moment ago or is on the way, `DeadlineExceeded`: then as far as it came.
        """
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                async with self._fleet.moving:
                    return await self._rebalance(max_shard_bytes, dry_run)
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before all experts were moved; those moved stay",
                stage="rebalance",
            ) from None

    async def move_to(self, homes: Homes) -> None:
        """Applies a placement that somebody else has planned. Raises `DependencyDown` where a shard
        is lost on the way, `NoRoomError`.
        """
        async with self._fleet.moving:
            places = self._places(None)
            for step in rounds(self._fleet.table.current.homes, homes, self._room(places)):
                await self._apply(step)

    async def _rebalance(self, max_shard_bytes: int | None, dry_run: bool) -> Rebalanced:
        before = self._fleet.table.current.homes
        loads = self._load.total().by_key(self._layers)
        places = self._places(max_shard_bytes)
        try:
            after = await asyncio.to_thread(plan, loads, places, before)
            steps = list(rounds(before, after, self._room(places)))
        except (NoPlacementError, NoRoomError) as error:
            if max_shard_bytes is None:
                raise DependencyDown(f"of the shards that answer: {error}") from error
            raise InvalidRequest(f"max_shard_bytes: {error}", field="max_shard_bytes") from error
        adds, drops = changes(before, after)
        for step in [] if dry_run else steps:
            await self._apply(step)
        return Rebalanced(
            version=self._fleet.table.current.version,
            applied=bool(steps) and not dry_run,
            before=self._balance(before, loads),
            after=self._balance(after, loads),
            adds=adds,
            drops=drops,
        )

    async def _apply(self, step: Round) -> None:
        fleet = self._fleet
        adds = _by_shard(step.adds)
        for shard in adds:
            if fleet.shards[shard].lost_s is not None:
                raise DependencyDown(f"the shard {shard!r} does not answer")
        await run_all(self._ask(fleet.take_up, shard, keys) for shard, keys in adds.items())
        placement = fleet.place(step.homes)
        self._metrics.placed(placement.version, len(step.adds) + len(step.drops))
        details = {
            "version": placement.version,
            "num_added": len(step.adds),
            "num_dropped": len(step.drops),
        }
        _LOG.info("placement_switched", extra=details)
        await fleet.table.settled()
        drops = {
            shard: keys
            for shard, keys in _by_shard(step.drops).items()
            if shard in fleet.shards and fleet.shards[shard].lost_s is None
        }
        await run_all(self._ask(fleet.give_up, shard, keys) for shard, keys in drops.items())

    async def _ask(self, what: _Change, name: str, keys: frozenset[ExpertKey]) -> None:
        try:
            await what(self._fleet.shards[name], keys)
        except OrreryError as error:  # whatever it is, it is no fault of the caller
            raise DependencyDown(
                f"the shard {name!r}: {error.message}", retry_after_s=_RETRY_AFTER_S
            ) from error

    def _places(self, max_shard_bytes: int | None) -> dict[str, int]:
        """Of the shards that answer. Raises `DependencyDown` while another may yet be replaced: its
        experts are not moved for a moment's silence.
        """
        limits = {}
        for name, shard in self._fleet.shards.items():
            if shard.lost_s is None and shard.report is not None:
                own = shard.report.max_expert_bytes
                limits[name] = own if max_shard_bytes is None else min(own, max_shard_bytes)
            elif time.monotonic() < self._fleet.gives_up_s([name]):
                raise DependencyDown(
                    f"the shard {name!r} does not answer; it may yet be replaced",
                    retry_after_s=_RETRY_AFTER_S,
                )
        if not limits:
            raise DependencyDown("no expert shard answers", retry_after_s=_RETRY_AFTER_S)
        return places_of(limits, self._bytes_per_expert)

    def _room(self, places: Mapping[str, int]) -> dict[str, int]:
        """While experts move: a place more than is planned with, or what a shard has now."""
        held = self._fleet.table.current.held_by
        return {name: max(planned + 1, len(held(name))) for name, planned in places.items()}

    def _balance(self, homes: Homes, loads: LoadByKey) -> Balance:
        shards = list(self._fleet.shards)
        rows = shard_loads(homes, loads, shards)
        return Balance(max_over_mean(rows), layers_max_over_mean(homes, loads, shards), rows)


def _by_shard(moves: Iterable[Move]) -> dict[str, frozenset[ExpertKey]]:
    found: defaultdict[str, set[ExpertKey]] = defaultdict(set)
    for key, shard in moves:
        found[shard].add(key)
    return {shard: frozenset(keys) for shard, keys in found.items()}
