"""A rebalance over shards in this process, with calls that go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from services.moe.expert_key import ExpertKey
from services.moe.router.config import FailureConfig
from services.moe.router.exchange import Exchange, Progress
from services.moe.router.fleet import Fleet
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.placement import PlacementTable
from services.moe.router.planner import max_over_mean
from services.moe.router.rebalancing import Rebalanced, Rebalancer
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
    OrreryError,
    Overloaded,
)
from services.runtime.metrics import PrometheusRegistry
from tests.fakes.moe_shards import WEIGHT_HASH, FakeShard
from tests.fakes.moe_toy_experts import expected_output, load_toys, rows_for
from tests.unit.moe.test_exchange import FAILURES

LAYERS, NUM_EXPERTS, NUM_SHARDS = (0, 2), 8, 4
SOON_GONE = FAILURES.model_copy(update={"replacement_timeout_s": 0.3})


@dataclass
class Rig:
    shards: dict[str, FakeShard]
    fleet: Fleet
    exchange: Exchange
    load: LoadWindow
    rebalancer: Rebalancer

    async def traffic(self, rounds: int = 5) -> dict[str, int]:
        """Zipf over experts; returns the rows that each shard computed."""
        before = {name: shard.num_rows for name, shard in self.shards.items()}
        zipf = 1.0 / np.arange(1, NUM_EXPERTS + 1) ** 2.0
        counts = {e: int(200 * share) + 1 for e, share in enumerate(zipf / zipf.sum())}
        for number in range(rounds):
            for layer in LAYERS:
                work = rows_for(layer, counts, seed=number)
                out = await self.exchange.compute(work, Progress())
                assert torch.equal(out, expected_output(work))
                of_experts = np.array(list(counts.values()))
                self.load.routed(layer, of_experts, 0.0, int(of_experts.sum()), 0)
        return {name: shard.num_rows - before[name] for name, shard in self.shards.items()}

    async def rebalance(self, *, dry_run: bool = False, limit: int | None = None) -> Rebalanced:
        return await self.rebalancer.rebalance(
            limit, dry_run=dry_run, deadline_s=time.monotonic() + 10
        )

    async def lose(self, name: str) -> None:
        """Until nobody waits for its replacement any more."""
        self.shards[name].gone = True
        while self.fleet.shards[name].lost_s is None:
            await self.fleet.change
        await asyncio.sleep(self.fleet.gives_up_s([name]) - time.monotonic() + 0.01)

    def check_held(self) -> None:
        homes = self.fleet.table.current.homes
        for name, shard in self.shards.items():
            assert set(shard.store.keys) == {k for k, shards in homes.items() if name in shards}


@asynccontextmanager
async def rig(max_experts: int = 9, failures: FailureConfig = FAILURES) -> AsyncIterator[Rig]:
    """All hot experts begin on the same shard."""
    names = [f"shard-{number}" for number in range(NUM_SHARDS)]
    per_shard = NUM_EXPERTS // NUM_SHARDS
    homes = {
        ExpertKey(layer, e): (names[e // per_shard],)
        for layer in LAYERS
        for e in range(NUM_EXPERTS)
    }
    shards = {name: FakeShard(name, load_toys, max_experts) for name in names}
    fleet = Fleet(shards, PlacementTable(homes), WEIGHT_HASH, failures)
    load = LoadWindow(LAYERS, NUM_EXPERTS, names, 60)
    metrics = RouterMetrics(PrometheusRegistry({"service": "moe"}))
    exchange = Exchange(fleet, failures, load, metrics, 10_000)
    running = Rig(shards, fleet, exchange, load, Rebalancer(fleet, load, LAYERS, 1, metrics))
    fleet.start({})
    try:
        while any(not fleet.holders(key, shards) for key, shards in homes.items()):
            await fleet.change
        yield running
    finally:
        await fleet.close()


async def test_skewed_load_is_evened_out_on_the_shards_themselves() -> None:
    async with rig() as r:
        before = max_over_mean(list(map(float, (await r.traffic()).values())))
        done = await r.rebalance()
        after = max_over_mean(list(map(float, (await r.traffic()).values())))
        assert before >= 3.0
        assert after <= 1.3
        assert done.applied
        assert done.before.max_over_mean == pytest.approx(before, rel=0.02)
        assert done.after.max_over_mean == pytest.approx(after, rel=0.05)
        r.check_held()
        assert all(len(shard.store.keys) <= 8 for shard in r.shards.values())


async def test_calls_go_on_while_experts_move() -> None:
    async with rig() as r:
        await r.traffic()
        for shard in r.shards.values():
            shard.delay_s = 0.002
        stop = asyncio.Event()

        async def caller() -> int:
            num_calls = 0
            while not stop.is_set():
                await r.traffic(rounds=1)  # each checks its rows
                num_calls += 1
            return num_calls

        callers = [asyncio.create_task(caller()) for _ in range(4)]
        done = await r.rebalance()
        stop.set()
        assert min(await asyncio.gather(*callers)) > 0
        assert done.applied
        r.check_held()


async def test_a_dry_run_moves_nothing() -> None:
    async with rig() as r:
        await r.traffic()
        version = r.fleet.table.current.version
        planned = await r.rebalance(dry_run=True)
        assert not planned.applied
        assert planned.adds
        assert planned.after.max_over_mean < planned.before.max_over_mean
        assert r.fleet.table.current.version == version
        r.check_held()
        done = await r.rebalance()
        assert (done.adds, done.drops) == (planned.adds, planned.drops)


async def test_what_is_even_stays() -> None:
    async with rig() as r:
        await r.traffic()
        await r.rebalance()
        await r.traffic(rounds=1)
        again = await r.rebalance()
        assert not again.applied
        assert not again.adds


async def test_a_limit_below_all_experts_is_refused() -> None:
    async with rig() as r:
        with pytest.raises(InvalidRequest, match="16 experts need as many places") as caught:
            await r.rebalance(limit=4)  # of each shard, one of them free
        assert caught.value.field == "max_shard_bytes"


async def test_a_limit_holds_while_experts_move() -> None:
    async with rig(max_experts=16) as r:
        await r.traffic()
        most = dict.fromkeys(r.shards, 0)

        def watched(shard: FakeShard) -> None:
            loads = shard.store.load

            def load(keys: Iterable[ExpertKey]) -> None:
                loads(keys)
                most[shard.name] = max(most[shard.name], len(shard.store.keys))

            shard.store.load = load  # type: ignore[method-assign]

        for shard in r.shards.values():
            watched(shard)
        assert (await r.rebalance(limit=6)).applied
        assert max(most.values()) == 6


async def test_too_little_room_on_the_shards_that_are_left_is_not_blamed_on_the_caller() -> None:
    async with rig(max_experts=5, failures=SOON_GONE) as r:
        await r.lose("shard-0")
        with pytest.raises(DependencyDown, match="16 experts need as many places") as caught:
            await r.rebalance()
        assert caught.value.field is None


async def test_what_a_cut_rebalance_left_makes_room() -> None:
    async with rig(max_experts=9) as r:
        await r.traffic()
        for shard in r.shards.values():
            missing = [ExpertKey(layer, e) for layer in LAYERS for e in range(NUM_EXPERTS)]
            shard.store.load([key for key in missing if key not in shard.store.keys][:5])
        await r.rebalance()
        r.check_held()


async def test_experts_of_a_lost_shard_are_brought_home() -> None:
    async with rig(failures=SOON_GONE) as r:
        await r.lose("shard-0")
        done = await r.rebalance()
        assert done.applied
        homes = r.fleet.table.current.homes
        assert all(shards and "shard-0" not in shards for shards in homes.values())
        await r.traffic()


async def test_a_shard_that_may_yet_be_replaced_keeps_its_experts() -> None:
    async with rig() as r:
        r.shards["shard-0"].gone = True
        while r.fleet.shards["shard-0"].lost_s is None:
            await r.fleet.change
        with pytest.raises(DependencyDown, match="'shard-0' does not answer; it may yet be"):
            await r.rebalance()
        r.shards["shard-0"].restart()
        while r.fleet.shards["shard-0"].lost_s is not None:
            await r.fleet.change
        await r.rebalance()


@pytest.mark.parametrize("error", [Overloaded("full"), InvalidRequest("x", field="experts")])
async def test_what_a_shard_refuses_is_not_blamed_on_the_caller(error: OrreryError) -> None:
    async with rig() as r:
        await r.traffic()

        async def refuses(keys: object, timeout_s: float) -> None:
            raise error

        for shard in r.shards.values():
            shard.load = refuses  # type: ignore[method-assign]
        with pytest.raises(DependencyDown, match=f"the shard 'shard-.': {error.message}") as caught:
            await r.rebalance()
        assert caught.value.field is None
        await r.traffic()


async def test_a_shard_lost_on_the_way_leaves_a_placement_that_holds() -> None:
    async with rig() as r:
        await r.traffic()
        shard = r.shards["shard-3"]

        async def dies(keys: object, timeout_s: float) -> None:
            shard.gone = True
            raise DependencyDown("the service 'shard-3' does not answer")

        loads, shard.load = shard.load, dies  # type: ignore[method-assign]
        with pytest.raises(DependencyDown):
            await r.rebalance()
        shard.load = loads  # type: ignore[method-assign]
        shard.restart()
        await r.traffic()
        for found in r.fleet.shards.values():
            await r.fleet.probe(found)
        r.check_held()


async def test_time_that_is_up_leaves_a_placement_that_holds() -> None:
    async with rig() as r:
        await r.traffic()
        slow = r.shards["shard-2"]
        loads = slow.load

        async def slowly(keys: object, timeout_s: float) -> None:
            await asyncio.sleep(0.3)
            await loads(keys, timeout_s)  # type: ignore[arg-type]

        slow.load = slowly  # type: ignore[method-assign]
        with pytest.raises(DeadlineExceeded):
            await r.rebalancer.rebalance(None, dry_run=False, deadline_s=time.monotonic() + 0.1)
        await r.traffic()
        await r.rebalance()
        r.check_held()
