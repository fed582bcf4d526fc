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
MAX_WAITING_BYTES = 16 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> ModelFacts:
    return read_model_facts(str(folder), "auto")


@dataclass(frozen=True)
class Shard:
    stub: ExpertShardServiceStub
    channel: grpc.aio.Channel
    running: RunningShard
    model: ModelFacts

    async def load(self, *pairs: tuple[int, int], **changes: Any) -> pb.LoadExpertsResponse:
        experts = [pb.ExpertId(layer=layer, expert=expert) for layer, expert in pairs]
        request = {"weight_hash": self.model.weight_hash, "experts": experts, **changes}
        return await self.stub.LoadExperts(pb.LoadExpertsRequest(**request), timeout=30)

    def work(self, sequence: int = 7, **changes: Any) -> pb.ComputeRequest:
        whole = {
            "weight_hash": self.model.weight_hash,
            "layer": 1,
            "expert_ids": [0, 3],
            "num_rows": [2, 1],
            "rows": to_message(self.rows(3)),
        }
        return pb.ComputeRequest(sequence=sequence, work=pb.ExpertWork(**{**whole, **changes}))

    def large_work(
        self, sequence: int = 7, num_rows: int = 1000, **changes: Any
    ) -> pb.ComputeRequest:
        """Too much to be computed at once: it waits in line."""
        rows = to_message(self.rows(num_rows))
        return self.work(sequence, num_rows=[num_rows - 300, 300], rows=rows, **changes)

    def huge_work(self, sequence: int = 0) -> pb.ComputeRequest:
        """Keeps others in line for long."""
        return self.large_work(sequence, num_rows=50_000)

    async def compute(self, *messages: pb.ComputeRequest) -> list[pb.ComputeResponse]:
        """All answers of one stream, as they come."""
        return [answer async for answer in self.stub.Compute(iter(messages), timeout=30)]

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
        max_waiting_bytes=MAX_WAITING_BYTES,
    )
    async with (
        shard_server(config) as running,
        grpc.aio.insecure_channel(running.target, options=OPTIONS) as channel,
    ):
        yield Shard(ExpertShardServiceStub(channel), channel, running, model)


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
    [done] = await shard.compute(shard.work(sequence=5))
    experts = load_experts(folder, [(1, 0), (1, 3)])[1]
    with torch.inference_mode():
        expected = expert_ffn(experts, shard.rows(3), [0, 3], [2, 1])
    assert done.rows == to_message(expected)
    assert (done.sequence, done.HasField("error")) == (5, False)
    assert done.timing.total_ns > 0
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert [(e.layer, e.expert) for e in told.experts] == [(1, 0), (1, 3), (2, 5)]
    assert (told.num_rows_done, told.num_running) == (3, 0)


async def test_an_expert_it_does_not_hold_is_not_found(shard: Shard) -> None:
    await shard.load((1, 0))
    [answer] = await shard.compute(shard.work())
    said = ("RESOURCE_NOT_FOUND", "work.expert_ids")
    assert (answer.error.reason, answer.error.field) == said
    assert not answer.HasField("rows")


async def test_what_is_dropped_is_gone_and_may_come_back(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    request = pb.DropExpertsRequest(
        weight_hash=shard.model.weight_hash, experts=[pb.ExpertId(layer=1, expert=3)] * 2
    )
    answer = await shard.stub.DropExperts(request, timeout=10)
    assert answer.expert_bytes == shard.model.bytes_per_expert
    await shard.stub.DropExperts(request, timeout=10)  # of what it does not hold
    [gone] = await shard.compute(shard.work())
    assert gone.error.reason == "RESOURCE_NOT_FOUND"
    await shard.load((1, 0), (1, 3))
    [back] = await shard.compute(shard.work())
    assert not back.HasField("error")


async def test_memory_has_a_limit(shard: Shard) -> None:
    await shard.load(*((0, e) for e in range(MAX_EXPERTS)))
    await shard.load(*((0, e) for e in range(MAX_EXPERTS)))  # no news
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shard.load((1, 0))
    assert refusal(caught.value).reason == "OVERLOADED"
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert len(told.experts) == MAX_EXPERTS


BAD_WORK: dict[str, tuple[dict[str, Any], str]] = {
    "other_weights": ({"weight_hash": "0" * 64}, "work.weight_hash"),
    "no_weights": ({"weight_hash": ""}, "work.weight_hash"),
    "layer": ({"layer": 99}, "work.layer"),
    "expert": ({"expert_ids": [0, 8]}, "work.expert_ids"),
    "expert_twice": ({"expert_ids": [3, 3]}, "work.expert_ids"),
    "fewer_counts": ({"num_rows": [3]}, "work.num_rows"),
    "wrong_sum": ({"num_rows": [2, 2]}, "work.num_rows"),
    "no_rows_of_one": ({"num_rows": [3, 0]}, "work.num_rows"),
    "huge_counts": ({"num_rows": [2**32 - 1, 2**32 - 1]}, "work.num_rows"),
    "nothing": ({"expert_ids": [], "num_rows": []}, "work.num_rows"),
    "no_tensor": ({"rows": None}, "work.rows.dtype"),
    "nan": ({"rows": to_message(torch.full((3, 64), float("nan")))}, "work.rows.data"),
    "no_time": ({"timeout_ms": 0}, "work.timeout_ms"),
    "width": ({"rows": to_message(torch.zeros(3, 65))}, "work.rows.shape"),
}


async def test_bad_work_is_told_by_field_in_its_answer_and_disturbs_no_other(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    bad = [shard.work(n, **changes) for n, (changes, _) in enumerate(BAD_WORK.values())]
    good = [shard.work(100 + n) for n in range(len(bad))]
    mixed = [message for pair in zip(bad, good, strict=True) for message in pair]
    answers = {answer.sequence: answer for answer in await shard.compute(*mixed)}
    for name, n in zip(BAD_WORK, range(len(bad)), strict=True):
        error = answers[n].error
        assert (error.reason, error.field) == ("INVALID_REQUEST", BAD_WORK[name][1]), name
        assert error.message.startswith(f"{error.field}: expected") or name.endswith("weights")
        assert answers[100 + n].rows == answers[100].rows
    assert len(answers) == len(mixed)


async def test_a_message_of_no_action_and_a_sequence_twice_are_told(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    messages = [shard.large_work(1), shard.work(1), pb.ComputeRequest(sequence=2)]
    answers = await shard.compute(*messages)
    told = {(answer.sequence, answer.error.field) for answer in answers}
    assert told == {(1, ""), (1, "sequence"), (2, "action")}


async def test_bytes_that_are_no_message_end_the_stream_as_invalid(shard: Shard) -> None:
    raw = shard.channel.stream_stream("/orrery.v1.ExpertShardService/Compute")
    call = raw(iter([b"\xff\xff\xff"]), timeout=10)
    assert await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT, None) == "INVALID_REQUEST"


async def test_bad_experts_to_load_are_refused_by_field(shard: Shard) -> None:
    for pairs, field in [
        ([], "experts"),
        ([(0, 0), (9, 0)], "experts[1].layer"),
        ([(0, 8)], "experts[0].expert"),
    ]:
        await refused(shard.load(*pairs), grpc.StatusCode.INVALID_ARGUMENT, field)
    other = shard.load((0, 0), weight_hash="x")
    await refused(other, grpc.StatusCode.INVALID_ARGUMENT, "weight_hash")


async def test_work_is_answered_as_soon_as_it_is_done(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    answers = await shard.compute(shard.huge_work(1), shard.work(2), shard.work(3))
    assert [answer.sequence for answer in answers] == [2, 3, 1]


async def test_work_whose_time_is_up_is_told_and_not_computed(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    answers = await shard.compute(shard.huge_work(0), shard.large_work(1, timeout_ms=1))
    assert [(a.sequence, a.error.reason) for a in answers] == [(1, "DEADLINE_EXCEEDED"), (0, "")]
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert (told.num_rows_done, told.num_running) == (50_000, 0)


async def test_too_much_in_line_is_refused(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    large = [shard.large_work(n, num_rows=4000) for n in range(1, 9)]
    answers = await shard.compute(shard.huge_work(0), *large)
    reasons = {answer.sequence: answer.error.reason for answer in answers}
    row_bytes = shard.model.hidden_size * 4
    fit = (MAX_WAITING_BYTES - 50_000 * row_bytes) // (4000 * row_bytes)
    assert 1 <= fit < 8
    assert reasons == {n: "" if n <= fit else "OVERLOADED" for n in range(9)}


async def test_what_is_cancelled_is_not_computed_and_frees_its_place(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    call = shard.stub.Compute(timeout=30)
    await call.write(shard.huge_work(0))
    for n in range(1, 5):
        await call.write(shard.large_work(n))
    for n in range(1, 5):
        await call.write(pb.ComputeRequest(sequence=n, cancel=pb.CancelWork()))
    await call.write(pb.ComputeRequest(sequence=99, cancel=pb.CancelWork()))  # never heard of
    await call.write(shard.large_work(50))
    await call.done_writing()
    answers = [answer async for answer in call]
    assert [(a.sequence, a.error.reason) for a in answers] == [(0, ""), (50, "")]
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert (told.num_rows_done, told.num_running) == (51_000, 0)


async def test_leaving_a_stream_gives_up_what_is_under_way_in_it(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    call = shard.stub.Compute(timeout=30)
    await call.write(shard.huge_work(0))
    for n in range(1, 4):
        await call.write(shard.large_work(n))
    await call.write(shard.work(4))
    assert (await call.read()).sequence == 4
    call.cancel()
    [answer] = await shard.compute(shard.large_work(1))
    assert not answer.HasField("error")
    told = await shard.stub.GetShard(pb.GetShardRequest(), timeout=10)
    assert (told.num_rows_done, told.num_running) == (1003, 0)


async def test_answers_that_nobody_reads_keep_the_shard_from_reading_more(shard: Shard) -> None:
    await shard.load((1, 0), (1, 3))
    call = shard.stub.Compute(timeout=30)
    large = shard.large_work(num_rows=4000).work

    async def write() -> None:
        for n in range(100):
            await call.write(pb.ComputeRequest(sequence=n, work=large))
        await call.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    assert not writing.done()
    answered = {answer.sequence async for answer in call}
    await writing
    assert answered == set(range(100))
