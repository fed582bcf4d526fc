"""Shards that die, hang, come back empty and are moved between, at random, under calls that go on:
every call is right or says that a shard is missing, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from services.moe.expert_key import ExpertKey
from services.moe.router.exchange import Progress
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.moves import NoRoomError
from services.moe.router.placement import Homes
from services.moe.router.rebalancing import Rebalancer
from services.runtime.errors import DependencyDown, OrreryError
from services.runtime.metrics import PrometheusRegistry
from tests.fakes.moe_toy_experts import expected_output, rows_for
from tests.unit.moe.test_exchange import FAILURES, Rig, rig

NUM_EXPERTS = 6
NAMES = ["a", "b", "c"]


def random_homes(chance: random.Random) -> Homes:
    return {
        ExpertKey(1, expert): tuple(chance.sample(NAMES, chance.randint(1, 3)))
        for expert in range(NUM_EXPERTS)
    }


async def call(r: Rig, seed: int) -> bool:
    """Whether it was answered, and then rightly."""
    chance = random.Random(seed)
    chosen = sorted(chance.sample(range(NUM_EXPERTS), chance.randint(1, NUM_EXPERTS)))
    work = rows_for(1, {expert: chance.randint(1, 9) for expert in chosen}, seed)
    try:
        out = await r.exchange.compute(work, Progress())
    except DependencyDown:
        return False
    assert torch.equal(out, expected_output(work))
    return True


async def trouble(r: Rig, chance: random.Random, rebalancer: Rebalancer) -> None:
    for _ in range(40):
        await asyncio.sleep(chance.random() * 0.02)
        shard = r.shards[chance.choice(NAMES)]
        match chance.randrange(5):
            case 0:
                shard.gone = True
            case 1 | 2:
                shard.restart()
            case 3:
                shard.delay_s = chance.random() * 0.01
            case 4:
                try:
                    async with asyncio.timeout(0.1):
                        await rebalancer.move_to(random_homes(chance))
                except (OrreryError, NoRoomError, TimeoutError):
                    pass
    for shard in r.shards.values():
        shard.restart()


@pytest.mark.parametrize("seed", range(4))
async def test_every_call_is_right_or_says_that_a_shard_is_missing(seed: int) -> None:
    chance = random.Random(seed)
    failures = FAILURES.model_copy(update={"replacement_timeout_s": 0.15})
    async with rig(random_homes(chance), failures) as r:
        load = LoadWindow((1,), NUM_EXPERTS, NAMES, 60)
        metrics = RouterMetrics(PrometheusRegistry({"service": "moe"}))
        rebalancer = Rebalancer(r.fleet, load, (1,), 1, metrics)
        troubled = asyncio.create_task(trouble(r, chance, rebalancer))
        answered = []
        number = seed * 100_000
        while not troubled.done():
            number += 10
            answered += await asyncio.gather(*(call(r, number + more) for more in range(4)))
            leaving = asyncio.create_task(call(r, number + 5))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await troubled
        await r.ready()
        assert await call(r, 1)
        assert any(answered)
        await r.fleet.table.settled()
        for shard in r.fleet.shards.values():
            await r.fleet.probe(shard)
        homes = r.fleet.table.current.homes
        for name, fake in r.shards.items():
            assert set(fake.store.keys) == {key for key, shards in homes.items() if name in shards}
