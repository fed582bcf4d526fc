"""The router's client of a shard, over real servers: failures are told, what was lost is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

from services.moe.expert_key import ExpertKey
from services.moe.model_facts import ModelFacts, read_model_facts
from services.moe.router.peers import PeerShard
from services.moe.shard.config import ShardConfig
from services.moe.shard_work import ShardWork
from services.runtime.errors import (
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
    ResourceNotFound,
    Unauthenticated,
)
from services.runtime.peer import Peer
from tests.fakes.moe_cluster import RunningShard, shard_server
from tests.fakes.moe_model import moe_folder
from tests.fakes.moe_shard_process import ShardProcess

HELD = [ExpertKey(1, 0), ExpertKey(1, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFacts:
    return read_model_facts(str(folder), "auto")


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[RunningShard]:
    config = ShardConfig(model_name="tiny-moe", model_path=str(folder), num_threads=1)
    async with shard_server(config) as shard:
        yield shard


@asynccontextmanager
async def client(
    target: str, model: ModelFacts, key: str | None = None
) -> AsyncIterator[PeerShard]:
    peer = Peer(target, num_channels=1, max_retries=0)
    shard = PeerShard(peer, "shard-0", model, key)
    try:
        yield shard
    finally:
        await shard.close()
        await peer.close()


def work(model: ModelFacts, num_rows: int = 3, expert: int = 0) -> ShardWork:
    rows = torch.randn(num_rows, model.hidden_size, generator=torch.Generator().manual_seed(0))
    return ShardWork(1, [expert], [num_rows], rows)


async def test_many_at_once_get_each_their_own(running: RunningShard, model: ModelFacts) -> None:
    async with client(running.target, model) as shard:
        await shard.load(HELD, 10)
        asked = [work(model, 1 + n % 7, (0, 3)[n % 2]) for n in range(50)]
        together = await asyncio.gather(*(shard.compute(one, 10) for one in asked))
        for one, rows in zip(asked, together, strict=True):
            assert torch.equal(rows, await shard.compute(one, 10))


async def test_what_a_message_fails_with_is_raised_and_disturbs_no_other(
    running: RunningShard, model: ModelFacts
) -> None:
    async with client(running.target, model) as shard:
        await shard.load(HELD, 10)
        good = [asyncio.ensure_future(shard.compute(work(model), 10)) for _ in range(3)]
        with pytest.raises(ResourceNotFound, match="expert 5 of layer 1 is not held"):
            await shard.compute(work(model, expert=5), 10)
        with pytest.raises(InvalidRequest) as caught:
            await shard.compute(work(model, expert=99), 10)
        assert caught.value.field == "work.expert_ids"
        await asyncio.gather(*good)
        await shard.compute(work(model), 10)


async def test_cancelled_work_leaves_nothing_held(running: RunningShard, model: ModelFacts) -> None:
    async with client(running.target, model) as shard:
        await shard.load(HELD, 10)
        await shard.compute(work(model), 10)
        huge = work(model, 50_000)
        tasks = [asyncio.ensure_future(shard.compute(huge, 10)) for _ in range(6)]
        await until(lambda: running.service.num_calls > 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: running.service.num_calls == 0)
        assert running.service.num_rows_done <= 3 + 50_000  # one had begun
        await shard.compute(work(model), 10)


async def test_a_wrong_key_is_told(folder: Path, model: ModelFacts) -> None:
    config = ShardConfig(model_name="tiny-moe", model_path=str(folder), num_threads=1)
    async with (
        shard_server(config, api_keys=("secret",)) as running,
        client(running.target, model, "wrong") as shard,
    ):
        with pytest.raises(Unauthenticated):
            await shard.compute(work(model), 10)


async def test_a_shard_that_dies_fails_what_is_under_way_and_is_found_again(
    folder: Path, model: ModelFacts
) -> None:
    process = ShardProcess(folder)
    try:
        process.start()
        async with client(process.target, model) as shard:
            await load_when_there(shard)
            before = await shard.compute(work(model), 10)
            process.stop()
            under_way = [asyncio.ensure_future(shard.compute(work(model), 20)) for _ in range(3)]
            await asyncio.sleep(0.1)
            process.kill()
            failures = await asyncio.gather(*under_way, return_exceptions=True)
            assert [type(failure) for failure in failures] == [DependencyDown] * 3
            process.start()
            await load_when_there(shard)
            assert torch.equal(await shard.compute(work(model), 10), before)
    finally:
        process.kill()


async def test_a_silent_shard_is_late_and_may_come_back(folder: Path, model: ModelFacts) -> None:
    process = ShardProcess(folder)
    try:
        process.start()
        async with client(process.target, model) as shard:
            await load_when_there(shard)
            before = await shard.compute(work(model), 10)
            process.stop()
            with pytest.raises(DeadlineExceeded, match="has not answered in time"):
                await shard.compute(work(model), 0.1)
            process.resume()
            assert torch.equal(await shard.compute(work(model), 10), before)
    finally:
        process.kill()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the shard has no event to tell it
            await asyncio.sleep(0.001)


async def load_when_there(shard: PeerShard) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await shard.load(HELD, 10)
            except DependencyDown:
                await asyncio.sleep(0.1)
