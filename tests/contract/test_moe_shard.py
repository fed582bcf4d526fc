"""`ExpertShardService` in this process: what it holds, computes, refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from orrery.v1 import expert_shard_pb2 as pb
from orrery.v1.expert_shard_pb2_grpc import ExpertShardServiceStub
from services.engine.expert_weights import load_experts
from services.engine.layers.moe import expert_ffn
from services.moe.model_facts import ModelFacts, read_model_facts
from services.moe.shard.config import ShardConfig
from services.moe.tensors import to_message
from tests.contract.served import refusal
from tests.fakes.moe_cluster import OPTIONS, RunningShard, shard_server
from tests.fakes.moe_model import moe_folder

MAX_EXPERTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFacts:
    return read_model_facts(str(folder), "auto")


@dataclass(frozen=True)
class Shard:
    stub: ExpertShardServiceStub
    running: RunningShard
    model: ModelFacts

    async def load(self, *pairs: tuple[int, int], **changes: Any) -> pb.LoadExpertsResponse:
        experts = [pb.ExpertId(layer=layer, expert=expert) for layer, expert in pairs]
        request = {"weight_hash": self.model.weight_hash, "experts": experts, **changes}
        return await self.stub.LoadExperts(pb.LoadExpertsRequest(**request), timeout=30)

    def work(self, **changes: Any) -> pb.ComputeRequest:
        whole = {
            "weight_hash": self.model.weight_hash,
            "layer": 1,
            "expert_ids": [0, 3],
            "num_rows": [2, 1],
            "rows": to_message(self.rows(3)),
        }
        return pb.ComputeRequest(**{**whole, **changes})

    def rows(self, count: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, self.model.hidden_size, generator=generator)


@pytest.fixture
async def shard(folder: Path, model: ModelFacts) -> AsyncIterator[Shard]:
    config = ShardConfig(
        model_name="tiny-moe",
        model_path=str(folder),
        num_threads=1,
        max_expert_bytes=MAX_EXPERTS * model.bytes_per_expert,
        max_waiting=4,
    )
    async with (
        shard_server(config) as running,
        grpc.aio.insecure_channel(running.target, options=OPTIONS) as channel,
    ):
        yield Shard(ExpertShardServiceStub(channel), running, model)


async def refused(call: Any, code: grpc.StatusCode, field: str | None) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    said = refusal(caught.value)
    assert (said.code, said.field) == (code, field)
    return said.reason


async def test_a_shard_begins_with_nothing(shard: Shard) -> None:
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert (list(told.experts), told.expert_bytes) == ([], 0)
    assert told.weight_hash == shard.model.weight_hash
    assert told.max_expert_bytes == MAX_EXPERTS * shard.model.bytes_per_expert


async def test_it_computes_what_it_holds(shard: Shard, folder: Path) -> None:
    answer = await shard.load((1, 0), (1, 3), (2, 5))
    assert answer.expert_bytes == 3 * shard.model.bytes_per_expert
    answer = await shard.stub.Compute(shard.work(), timeout=10)
    experts = load_experts(folder, [(1, 0), (1, 3)])[1]
    with torch.inference_mode():
        expected = expert_ffn(experts, shard.rows(3), [0, 3], [2, 1])
    assert answer.rows == to_message(expected)
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert [(e.layer, e.expert) for e in told.experts] == [(1, 0), (1, 3), (2, 5)]
    assert (told.num_rows_done, told.num_running) == (3, 0)


async def test_an_expert_it_does_not_hold_is_not_found(shard: Shard) -> None:
    await shard.load((1, 0))
    call = shard.stub.Compute(shard.work(), timeout=10)
    assert await refused(call, grpc.StatusCode.NOT_FOUND, "expert_ids") == "RESOURCE_NOT_FOUND"


async def test_what_is_dropped_is_gone_and_may_come_back(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    request = pb.DropExpertsRequest(
        weight_hash=shard.model.weight_hash, experts=[pb.ExpertId(layer=1, expert=3)] * 2
    )
    answer = await shard.stub.DropExperts(request, timeout=10)
    assert answer.expert_bytes == shard.model.bytes_per_expert
    await shard.stub.DropExperts(request, timeout=10)  # of what it does not hold
    await refused(shard.stub.Compute(shard.work(), timeout=10), grpc.StatusCode.NOT_FOUND,
                  "expert_ids")  # fmt: skip
    await shard.load((1, 0), (1, 3))
    await shard.stub.Compute(shard.work(), timeout=10)


async def test_memory_has_a_limit(shard: Shard) -> None:
    await shard.load(*((0, e) for e in range(MAX_EXPERTS)))
    await shard.load(*((0, e) for e in range(MAX_EXPERTS)))  # no news
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shard.load((1, 0))
    assert refusal(caught.value).reason == "OVERLOADED"
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert len(told.experts) == MAX_EXPERTS


BAD_WORK: dict[str, tuple[dict[str, Any], str]] = {
    "other_weights": ({"weight_hash": "0" * 64}, "weight_hash"),
    "no_weights": ({"weight_hash": ""}, "weight_hash"),
    "layer": ({"layer": 99}, "layer"),
    "expert": ({"expert_ids": [0, 8]}, "expert_ids"),
    "expert_twice": ({"expert_ids": [3, 3]}, "expert_ids"),
    "fewer_counts": ({"num_rows": [3]}, "num_rows"),
    "wrong_sum": ({"num_rows": [2, 2]}, "num_rows"),
    "no_rows_of_one": ({"num_rows": [3, 0]}, "num_rows"),
    "huge_counts": ({"num_rows": [2**32 - 1, 2**32 - 1]}, "num_rows"),
    "nothing": ({"expert_ids": [], "num_rows": []}, "num_rows"),
    "no_tensor": ({"rows": None}, "rows.dtype"),
    "nan": ({"rows": to_message(torch.full((3, 64), float("nan")))}, "rows.data"),
    "width": ({"rows": to_message(torch.zeros(3, 65))}, "rows.shape"),
}


@pytest.mark.parametrize("name", BAD_WORK)
async def test_bad_work_is_refused_by_field(shard: Shard, name: str) -> None:
    changes, field = BAD_WORK[name]
    await shard.load((1, 0), (1, 3))
    call = shard.stub.Compute(shard.work(**changes), timeout=10)
    assert await refused(call, grpc.StatusCode.INVALID_ARGUMENT, field) == "INVALID_REQUEST"
    await shard.stub.Compute(shard.work(), timeout=10)


async def test_bad_experts_to_load_are_refused_by_field(shard: Shard) -> None:
    for pairs, field in [
        ([], "experts"),
        ([(0, 0), (9, 0)], "experts[1].layer"),
        ([(0, 8)], "experts[0].expert"),
    ]:
        await refused(shard.load(*pairs), grpc.StatusCode.INVALID_ARGUMENT, field)
    other = shard.load((0, 0), weight_hash="x")
    await refused(other, grpc.StatusCode.INVALID_ARGUMENT, "weight_hash")


async def test_too_many_calls_in_line_are_refused_and_cancelled_ones_free_it(
    shard: Shard,
) -> None:
    await shard.load((1, 0), (1, 3))
    # Too much to be computed at once.
    large = shard.work(num_rows=[700, 300], rows=to_message(shard.rows(1000)))
    calls = [shard.stub.Compute(large, timeout=30) for _ in range(64)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [a for a in answers if isinstance(a, grpc.aio.AioRpcError)]
    assert {refusal(error).reason for error in refusals} <= {"OVERLOADED"}
    assert len(refusals) < len(answers)
    waiting = [shard.stub.Compute(large, timeout=30) for _ in range(4)]
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await shard.stub.Compute(large, timeout=30)
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert told.num_running == 0
