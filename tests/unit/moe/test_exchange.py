"""Rows to shards and back, over shards in this process that fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import torch

from services.moe.expert_key import ExpertKey
from services.moe.router.config import FailureConfig
from services.moe.router.exchange import Exchange, Progress
from services.moe.router.fleet import Fleet
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.placement import Homes, PlacementTable
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    Internal,
    InvalidRequest,
    OrreryError,
    Overloaded,
)
from services.runtime.metrics import PrometheusRegistry
from tests.fakes.moe_shards import WEIGHT_HASH, FakeShard
from tests.fakes.moe_toy_experts import expected_output, load_toys, rows_for

FAILURES = FailureConfig(
    attempt_timeout_s=5.0,
    hedge_floor_s=0.01,
    replacement_timeout_s=5.0,
    probe_interval_s=0.5,
    probe_lost_interval_s=0.01,
)


def key(expert: int, layer: int = 1) -> ExpertKey:
    return ExpertKey(layer, expert)


@dataclass
class Rig:
    shards: Mapping[str, FakeShard]
    fleet: Fleet
    exchange: Exchange

    async def compute(self, counts: dict[int, int]) -> None:
        """Raises what the exchange raises; otherwise the output is as it must be."""
        work = rows_for(1, counts)
        out = await self.exchange.compute(work, Progress())
        assert torch.equal(out, expected_output(work))

    async def ready(self) -> None:
        """Until all shards hold what they should."""
        homes = self.fleet.table.current.homes
        while any(len(self.fleet.holders(k, h)) < len(h) for k, h in homes.items()):
            await self.fleet.change


@asynccontextmanager
async def rig(
    homes: Homes, failures: FailureConfig = FAILURES, max_rows: int = 1000
) -> AsyncIterator[Rig]:
    names = sorted({shard for shards in homes.values() for shard in shards})
    shards = {name: FakeShard(name, load_toys) for name in names}
    fleet = Fleet(shards, PlacementTable(homes), WEIGHT_HASH, failures)
    load = LoadWindow((1,), 8, names, 60)
    metrics = RouterMetrics(PrometheusRegistry({"service": "moe"}))
    running = Rig(shards, fleet, Exchange(fleet, failures, load, metrics, max_rows))
    fleet.start({})
    try:
        await running.ready()
        yield running
        await asyncio.sleep(0.01)  # what was cancelled ends
        assert (running.exchange.num_attempts, running.exchange.num_hedges) == (0, 0)
        assert not any(shard.num_hanging for shard in shards.values())
    finally:
        await fleet.close()


async def test_rows_come_back_in_their_order_from_several_shards() -> None:
    async with rig({key(0): ("a",), key(1): ("b",), key(2): ("a",), key(3): ("b",)}) as r:
        await r.compute({0: 3, 1: 1, 2: 5, 3: 2})
        assert [shard.num_calls for shard in r.shards.values()] == [1, 1]


async def test_rows_of_a_replicated_expert_are_split_evenly() -> None:
    async with rig({key(0): ("a", "b", "c")}) as r:
        await r.compute({0: 31})
        assert sorted(shard.num_rows for shard in r.shards.values()) == [10, 10, 11]
        for _ in range(30):
            await r.compute({0: 1})
        rows = [shard.num_rows for shard in r.shards.values()]
        assert max(rows) - min(rows) <= 1


async def test_rows_of_one_call_stay_within_what_a_message_holds() -> None:
    async with rig({key(0): ("a",), key(1): ("a",)}, max_rows=4) as r:
        await r.compute({0: 9, 1: 2})
        sizes = [len(call.rows) for call in r.shards["a"].calls]
        assert sum(sizes) == 11
        assert max(sizes) <= 4


async def test_a_lost_shard_is_made_up_for_by_another_replica() -> None:
    async with rig({key(0): ("a", "b"), key(1): ("a", "b")}) as r:
        r.shards["a"].gone = True
        await r.compute({0: 5, 1: 5})
        await r.compute({0: 2, 1: 3})
        r.shards["a"].restart()
        await r.ready()
        await r.compute({0: 4, 1: 4})
        assert r.shards["a"].num_rows == 4


async def test_rows_wait_for_the_only_shard_to_be_replaced() -> None:
    async with rig({key(0): ("a",), key(1): ("b",)}) as r:
        r.shards["a"].gone = True
        call = asyncio.create_task(r.compute({0: 3, 1: 3}))
        await asyncio.sleep(0.05)
        assert not call.done()
        r.shards["a"].restart()
        await call


async def test_a_shard_that_comes_back_empty_is_told_to_load() -> None:
    async with rig({key(0): ("a",), key(1): ("a",)}) as r:
        r.shards["a"].restart()  # unnoticed: no call was lost
        await r.compute({0: 2, 1: 2})
        assert r.shards["a"].store.keys == [key(0), key(1)]


async def test_rows_are_given_up_when_no_shard_comes_back() -> None:
    failures = FAILURES.model_copy(update={"replacement_timeout_s": 0.1})
    async with rig({key(0): ("a",), key(1): ("b",)}, failures) as r:
        r.shards["a"].gone = True
        with pytest.raises(DependencyDown, match="no shard that holds expert 0 of layer 1 answers"):
            await r.compute({0: 3, 1: 3})
        # Known to be gone: the next is not kept waiting.
        async with asyncio.timeout(0.05):
            with pytest.raises(DependencyDown):
                await r.compute({0: 1})
        await r.compute({1: 4})


async def test_a_slow_call_is_repeated_on_another_replica() -> None:
    async with rig({key(0): ("a", "b")}) as r:
        for _ in range(40):
            await r.compute({0: 2})
        r.shards["a"].hangs = True
        async with asyncio.timeout(2.0):
            await r.compute({0: 8})
            await r.compute({0: 8})


async def test_a_silent_shard_is_given_up_after_its_time() -> None:
    failures = FAILURES.model_copy(update={"attempt_timeout_s": 0.1})

    async with rig({key(0): ("a", "b")}, failures) as r:
        r.shards["a"].hangs = True
        # What a real client does when its time is up.
        slow = r.shards["a"].compute

        async def timed(work, timeout_s):  # type: ignore[no-untyped-def]
            from services.runtime.errors import DeadlineExceeded

            try:
                async with asyncio.timeout(timeout_s):
                    return await slow(work, timeout_s)
            except TimeoutError:
                raise DeadlineExceeded("no answer in time") from None

        r.shards["a"].compute = timed  # type: ignore[method-assign]
        await r.compute({0: 4})


async def test_a_busy_shard_is_asked_again() -> None:
    async with rig({key(0): ("a",)}) as r:
        r.shards["a"].fails_with = Overloaded("256 calls wait already")
        call = asyncio.create_task(r.compute({0: 3}))
        await asyncio.sleep(0.08)
        r.shards["a"].fails_with = None
        await call


async def test_a_shard_that_fails_otherwise_is_not_asked_again_for_these_rows() -> None:
    async with rig({key(0): ("a", "b"), key(1): ("a",)}) as r:
        r.shards["a"].fails_with = Internal("it broke")
        await r.compute({0: 6})
        with pytest.raises(Internal, match="it broke"):
            await r.compute({1: 2})


async def test_what_a_shard_refuses_is_no_fault_of_the_caller() -> None:
    async with rig({key(0): ("a",)}) as r:
        r.shards["a"].fails_with = InvalidRequest(
            "rows.dtype: expected another", field="rows.dtype"
        )
        with pytest.raises(Internal, match="the shard 'a' refused the router's work") as caught:
            await r.compute({0: 2})
        assert caught.value.field is None


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), DependencyDown("cut")])
async def test_a_shard_that_answers_probes_is_not_lost(error: OrreryError) -> None:
    async with rig({key(0): ("a",)}) as r:
        shard = r.fleet.shards["a"]
        r.shards["a"].fails_with = error
        call = asyncio.create_task(r.compute({0: 3}))
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert shard.lost_s is None
        r.shards["a"].fails_with = None
        await call


async def test_a_shard_is_lost_once_its_connection_has_failed_twice() -> None:
    async with rig({key(0): ("a",)}) as r:
        shard, fake = r.fleet.shards["a"], r.shards["a"]
        reports = fake.num_reports
        fake.refuses_reports = 1
        shard.probe_now.set()
        while fake.num_reports < reports + 3:
            assert shard.lost_s is None
            await asyncio.sleep(0.005)
        fake.refuses_reports = 2
        shard.probe_now.set()
        while shard.lost_s is None:
            await r.fleet.change
        await r.ready()


async def test_few_attempts_are_repeated_where_everything_is_slow() -> None:
    async with rig({key(0): ("a", "b")}) as r:
        for _ in range(40):
            await r.compute({0: 2})
        for shard in r.shards.values():
            shard.delay_s = 0.2
        calls = [asyncio.create_task(r.compute({0: 8})) for _ in range(12)]
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, r.exchange.num_hedges)
            await asyncio.sleep(0.002)
        await asyncio.gather(*calls)
        assert 1 <= most <= 3
        assert r.exchange.num_hedges == 0


async def test_cancelling_cancels_the_calls() -> None:
    async with rig({key(0): ("a",), key(1): ("b",)}) as r:
        for shard in r.shards.values():
            shard.hangs = True
        call = asyncio.create_task(r.compute({0: 2, 1: 2}))
        await asyncio.sleep(0.02)
        assert r.exchange.num_attempts == 2
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0)
        assert r.exchange.num_attempts == 0


async def test_those_who_wait_follow_the_placement_that_comes() -> None:
    async with rig({key(0): ("a",), key(1): ("b",)}) as r:
        r.shards["a"].gone = True
        call = asyncio.create_task(r.compute({0: 3}))
        await asyncio.sleep(0.03)
        await r.fleet.take_up(r.fleet.shards["b"], frozenset({key(0)}))
        r.fleet.place({key(0): ("b",), key(1): ("b",)})
        await call
        await r.fleet.table.settled()


async def test_what_the_placement_does_not_give_a_shard_is_dropped() -> None:
    async with rig({key(0): ("a",), key(1): ("a", "b")}) as r:
        r.fleet.place({key(0): ("a",), key(1): ("b",)})
        await r.fleet.probe(r.fleet.shards["a"])
        assert r.shards["a"].store.keys == [key(0)]


async def test_a_shard_of_other_weights_is_not_asked() -> None:
    async with rig({key(0): ("a", "b")}) as r:
        other = FakeShard("a", load_toys)
        r.fleet.shards["a"].client = other
        report = other.report

        async def wrong(timeout_s: float):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(await report(timeout_s), weight_hash="others")

        other.report = wrong  # type: ignore[method-assign]
        r.fleet.incomplete(r.fleet.shards["a"], frozenset({key(0)}))
        while r.fleet.shards["a"].lost_s is None:
            await r.fleet.change
        await r.compute({0: 4})
        assert other.num_calls == 0
