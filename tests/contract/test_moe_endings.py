"""How calls to the router end where too much waits, time is up, shards are slow or gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from safetensors.torch import load_file, save_file

from orrery.v1 import common_pb2
from orrery.v1 import moe_pb2 as pb
from services.generation import experts_watch
from services.generation.config import RemoteExpertsConfig
from services.generation.experts_watch import ExpertsWatch
from services.moe.router.metrics import RouterMetrics
from services.moe.shard.config import ShardConfig
from services.moe.tensors import to_message
from tests.contract.moe_served import ServedMoe, served_moe
from tests.contract.served import Refusal, refusal
from tests.fakes.moe_cluster import MODEL_NAME, RunningCluster, moe_cluster, shard_server
from tests.fakes.moe_model import moe_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningCluster, ServedMoe]]:
    """After each test nothing may be left running in it."""
    async with (
        moe_cluster(folder, **settings) as cluster,
        served_moe(cluster.target, routed=False) as served,
    ):
        yield cluster, served
        await served.check_idle()


async def ended(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while True:
        if condition():
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def slow_down(cluster: RunningCluster, shard: str) -> None:
    """It answers that it is there, and computes nothing."""

    async def never(*_: object) -> None:
        await asyncio.sleep(1000)

    cluster.shards[shard].service.compute = never  # type: ignore[assignment,method-assign]


async def stop(cluster: RunningCluster, shard: str) -> None:
    await cluster.shards[shard].server.stop(None)
    await until(lambda: cluster.service.shards[shard].lost_s is not None)


async def tokens_of(cluster: RunningCluster, served: ServedMoe, shard: str) -> pb.LayerInput:
    """A token whose experts all live on that shard."""
    layer, rows = served.model.layers[0], served.hidden(200)
    entering = pb.LayerInput(layer=layer, hidden=to_message(rows))
    (routing,) = (await served.call("Route", pb.RouteRequest(hidden=entering))).layers
    homes = cluster.service.placement.homes
    for row, pair in zip(rows, torch.tensor(routing.expert_ids).view(-1, 2).tolist(), strict=True):
        if all(homes[layer, expert] == (shard,) for expert in pair):
            return pb.LayerInput(layer=layer, hidden=to_message(row.unsqueeze(0)))
    raise AssertionError(f"no token goes to {shard} alone")


def stream_message(entering: pb.LayerInput, timeout_ms: int) -> pb.DispatchStreamRequest:
    return pb.DispatchStreamRequest(sequence=1, input=entering, timeout_ms=timeout_ms)


async def first_of_stream(served: ServedMoe, message: pb.DispatchStreamRequest) -> Any:
    call = served.stub.DispatchStream(iter([message]), metadata=served.metadata, timeout=60)
    return await call.read()


async def test_tokens_that_wait_for_slow_shards_are_bounded(folder: Path) -> None:
    limits = {"max_waiting_tokens": 8}
    async with running(folder, limits=limits) as (cluster, served):
        assert served.model.max_tokens == 8
        for shard in cluster.shards:
            slow_down(cluster, shard)
        held = [
            asyncio.create_task(
                served.call("Dispatch", pb.DispatchRequest(input=served.layer_input(4)))
            )
            for _ in range(2)
        ]
        await until(lambda: cluster.service.dispatcher.num_attempts > 0)
        await until(lambda: cluster.service.dispatcher.num_waiting_tokens == 8)
        said = await ended(served.call("Dispatch", pb.DispatchRequest(input=served.layer_input(1))))
        assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert said.retry_after_s is not None
        assert (await served.load()).num_waiting_tokens == 8
        for call in held:
            call.cancel()
        await asyncio.wait(held)


async def test_a_message_whose_time_is_up_ends_its_stream(folder: Path) -> None:
    async with running(folder) as (cluster, served):
        for shard in cluster.shards:
            slow_down(cluster, shard)
        said = await ended(first_of_stream(served, stream_message(served.layer_input(), 200)))
        assert (said.code, said.stage) == (grpc.StatusCode.DEADLINE_EXCEEDED, "dispatch")
        said = await ended(first_of_stream(served, stream_message(served.layer_input(), 0)))
        assert (said.code, said.field) == (grpc.StatusCode.INVALID_ARGUMENT, "timeout_ms")


async def test_a_call_is_told_of_the_shards_that_it_waits_for_itself(folder: Path) -> None:
    async with running(folder) as (cluster, served):
        of_lost = await tokens_of(cluster, served, "shard-0")
        of_slow = await tokens_of(cluster, served, "shard-1")
        slow_down(cluster, "shard-1")
        await stop(cluster, "shard-0")
        waits = asyncio.create_task(first_of_stream(served, stream_message(of_lost, 2000)))
        await until(lambda: cluster.service.dispatcher.num_waiting_tokens == 1)
        await asyncio.sleep(0.05)  # its batch has begun
        slow = await ended(first_of_stream(served, stream_message(of_slow, 200)))
        assert (slow.code, slow.stage) == (grpc.StatusCode.DEADLINE_EXCEEDED, "dispatch")
        said = await ended(waits)
        assert (said.code, said.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_DOWN")
        assert said.retry_after_s is not None


async def test_a_key_is_asked_of_those_who_dispatch(folder: Path) -> None:
    async with moe_cluster(folder, api_keys=("secret",)) as cluster:
        allowed = (("authorization", "Bearer secret"),)
        async with served_moe(cluster.target, routed=False, metadata=allowed) as served:
            request = pb.DispatchRequest(input=served.layer_input())
            assert (await served.call("Dispatch", request)).hidden.shape
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                said = await ended(served.stub.Dispatch(request, metadata=metadata, timeout=30))
                assert said.code is grpc.StatusCode.UNAUTHENTICATED


async def test_texts_in_line_are_bounded_and_one_that_is_left_frees_its_place(
    folder: Path,
) -> None:
    async with running(folder, text={"max_waiting": 1}) as (cluster, served):
        await served.call("Analyze", pb.AnalyzeRequest(text="once"))  # the trunk is loaded
        for shard in cluster.shards:
            slow_down(cluster, shard)
        request = pb.AnalyzeRequest(text="The observatory opens")
        held = [asyncio.create_task(served.call("Analyze", request)) for _ in range(2)]
        await until(lambda: cluster.service.dispatcher.num_attempts > 0)
        await until(lambda: cluster.servicer.rpc.lifecycle.num_in_flight == 2)
        await asyncio.sleep(0.05)  # the second is in line
        said = await ended(served.call("Analyze", request))
        assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        for call in held:
            call.cancel()
        await asyncio.wait(held)
        await served.check_idle()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.Analyze(request, timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_token_ids_are_checked_before_they_wait(folder: Path) -> None:
    async with running(folder, text={"max_waiting": 0, "max_tokens": 20}) as (cluster, served):
        for shard in cluster.shards:
            slow_down(cluster, shard)
        held = asyncio.create_task(served.call("Analyze", pb.AnalyzeRequest(text="abc")))
        await until(lambda: cluster.service.dispatcher.num_attempts > 0)
        for ids in ([1] * 20, [199]):
            request = pb.RouteRequest(token_ids=common_pb2.TokenIds(ids=ids))
            assert (await ended(served.call("Route", request))).field == "token_ids"
        held.cancel()
        await asyncio.wait([held])


async def test_a_text_whose_numbers_overflow_is_refused_by_field(tmp_path: Path) -> None:
    broken = moe_folder(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][7] = float("inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    async with running(broken) as (_, served):
        good = pb.RouteRequest(token_ids=common_pb2.TokenIds(ids=[1, 2, 3]))
        bad = pb.RouteRequest(token_ids=common_pb2.TokenIds(ids=[1, 7, 3]))
        said = await ended(served.call("Route", bad))
        assert (said.code, said.field) == (grpc.StatusCode.INVALID_ARGUMENT, "token_ids")
        assert (await served.call("Route", good)).layers


async def test_metrics_count_what_was_asked(folder: Path) -> None:
    async with running(folder) as (cluster, served):
        layer = served.model.layers[1]
        entering = pb.DispatchRequest(input=served.layer_input(6, layer=layer))
        for _ in range(3):
            await served.call("Dispatch", entering)
        await cluster.service.close()  # tells what was not told yet

        def value(name: str, **labels: str) -> float | None:
            whole = {"service": "moe", "model": MODEL_NAME, **labels}
            return cluster.registry.collector.get_sample_value(f"orrery_moe_{name}", whole)

        assert value("tokens_total", layer=str(layer)) == 18
        assert value("dispatch_seconds_count", layer=str(layer)) == 3
        assert value("batch_tokens_sum") == 18
        assert sum(value("shard_rows_total", shard=name) or 0.0 for name in cluster.shards) == 36
        assert (value("load_max_over_mean", layer=str(layer)) or 0.0) >= 1
        assert (value("gate_entropy", layer=str(layer)) or 0.0) > 0
        assert value("dropped_fraction", layer=str(layer)) == 0
        assert value("placement_version") == cluster.service.placement.version
        for name in cluster.shards:  # told of before the first
            assert value("shard_failures_total", shard=name, reason="DEPENDENCY_DOWN") == 0


async def test_experts_that_are_away_leave_router_and_decoder_not_ready_until_they_are_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts_watch, "_INTERVAL_S", 0.05)
    async with moe_cluster(folder) as cluster:
        watch = ExpertsWatch(RemoteExpertsConfig(application="router", grpc_target=cluster.target))
        await until(lambda: cluster.service.hindrance is None)  # they are being loaded
        await until(lambda: watch.hindrance is None)
        await stop(cluster, "shard-0")
        await until(lambda: watch.hindrance is not None)
        assert "experts are loaded by no shard that answers; lost: shard-0" in str(watch.hindrance)
        assert cluster.service.failure is None  # another router would not find them either
        port = int(cluster.shards["shard-0"].target.rpartition(":")[2])
        config = ShardConfig(model_name=MODEL_NAME, model_path=str(folder), num_threads=1)
        async with shard_server(config, port):
            await until(lambda: watch.hindrance is None)
            assert cluster.service.hindrance is None
        await watch.close()


async def test_a_router_whose_metrics_stand_still_is_to_be_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with moe_cluster(folder) as cluster:
        assert cluster.service.failure is None

    def breaks(*_: object) -> None:
        raise RuntimeError("the exporter is gone")

    monkeypatch.setattr(RouterMetrics, "flush", breaks)
    async with moe_cluster(folder) as cluster:
        await until(lambda: cluster.service.failure is not None)
