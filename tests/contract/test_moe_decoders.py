"""Decoders whose experts are the service's: the tokens of `experts: local`, whatever happens to the
shards meanwhile, or an error that says so.

Real engines, real gRPC servers; the shards that are killed are processes of their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from orrery.errors import AuthenticationError
from orrery.v1 import moe_pb2 as pb
from services.engine.errors import ConfigError, ExpertsUnavailableError
from services.moe.router.placement import Homes
from tests.contract.moe_served import Decoder, prompts, remote_experts, served_moe
from tests.fakes.moe_cluster import FAILURES, RunningCluster, moe_cluster_in_thread
from tests.fakes.moe_model import moe_folder
from tests.fakes.moe_shard_process import ShardProcess

NUM_DECODERS = 3
Tokens = dict[tuple[int, ...], list[int] | None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def local(folder: Path) -> Tokens:
    """What the model says with its experts in this process."""
    asked = prompts(50)
    return dict(zip(map(tuple, asked), Decoder(folder).generate(asked), strict=True))


@contextmanager
def decoders(target: str, folder: Path, timeout_s: float = 20.0) -> Iterator[Callable[..., Tokens]]:
    """Several, each with a stream of its own. The function has them answer prompts together, and
    calls `in_the_middle` in this thread meanwhile: they begin again until it is over.
    """
    with ExitStack() as stack:
        engines = [
            Decoder(folder, stack.enter_context(remote_experts(target, timeout_s)))
            for _ in range(NUM_DECODERS)
        ]
        threads = stack.enter_context(ThreadPoolExecutor(NUM_DECODERS))

        def generate(
            asked: list[tuple[int, ...]], in_the_middle: Callable[[], None] | None = None
        ) -> Tokens:
            begun, over = threading.Event(), threading.Event()

            def answer(engine: Decoder, part: list[tuple[int, ...]]) -> Tokens:
                rounds = [engine.generate(part, on_step=begun.set)]
                while not over.is_set():
                    rounds.append(engine.generate(part))
                return dict(zip(part, map(same, zip(*rounds, strict=True)), strict=True))

            parts = [asked[number::NUM_DECODERS] for number in range(NUM_DECODERS)]
            running = [threads.submit(answer, *pair) for pair in zip(engines, parts, strict=True)]
            try:
                if in_the_middle is not None:
                    assert begun.wait(30)
                    in_the_middle()
            finally:
                over.set()
            found: Tokens = {}
            for answers in running:
                found |= answers.result(timeout=120)
            return found

        yield generate


def same(answers: Iterable[list[int] | None]) -> list[int] | None:
    """What a prompt was answered each time; None where it once was not."""
    given = list(answers)
    found = [tokens for tokens in given if tokens is not None]
    assert all(tokens == found[0] for tokens in found)
    return None if None in given else found[0]


def check_idle(target: str, num_streams: int = NUM_DECODERS) -> None:
    """Nothing is under way but the streams that decoders keep open."""

    async def check() -> None:
        async with served_moe(target, routed=False, num_streams=num_streams) as served:
            await served.check_idle()

    asyncio.run(check())


def counted(cluster: RunningCluster, name: str) -> float:
    """A metric of the router, summed over its labels."""
    return sum(
        sample.value
        for metric in cluster.registry.collector.collect()
        for sample in metric.samples
        if sample.name == f"orrery_moe_{name}"
    )


@pytest.mark.parametrize("num_shards", [2, 4])
def test_tokens_are_those_of_local_experts(folder: Path, local: Tokens, num_shards: int) -> None:
    with moe_cluster_in_thread(folder, num_shards=num_shards) as cluster:
        with decoders(cluster.target, folder) as generate:
            assert generate(list(local)) == local
            check_idle(cluster.target)
        check_idle(cluster.target, num_streams=0)


def test_streams_without_work_keep_nobody_from_ending(folder: Path, local: Tokens) -> None:
    asked = list(local)[: 2 * NUM_DECODERS]
    with (
        moe_cluster_in_thread(folder) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        answers = generate(asked)
        shards = [shard.servicer for shard in cluster.shards.values()]
        lifecycles = [servicer.rpc.lifecycle for servicer in (cluster.servicer, *shards)]
        assert [one.num_in_flight for one in lifecycles] == [NUM_DECODERS, *[1] * len(shards)]
        for lifecycle in lifecycles:
            drained = asyncio.run_coroutine_threadsafe(lifecycle.drain(600.0), cluster.loop)
            assert drained.result(timeout=60) == 0
            assert lifecycle.num_in_flight == 0
    assert answers == {prompt: local[prompt] for prompt in asked}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe", "qwen3-moe-some-layers"])
def test_every_family_in_every_type_says_the_same(
    tmp_path: Path, name: str, dtype: Literal["float32", "bfloat16"]
) -> None:
    folder = moe_folder(tmp_path / "model", name)
    asked = prompts(6, seed=1)
    with (
        moe_cluster_in_thread(folder, dtype=dtype) as cluster,
        remote_experts(cluster.target) as experts,
    ):
        remote = Decoder(folder, experts, dtype)
        experts.check(remote.engine.model.weight_hash, remote.engine.model.dtype)
        assert remote.generate(asked) == Decoder(folder, dtype=dtype).generate(asked)


def test_a_step_of_more_tokens_than_a_call_takes_is_sent_in_parts(
    folder: Path, local: Tokens
) -> None:
    with (
        moe_cluster_in_thread(folder, limits={"max_tokens": 5}) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        assert generate(list(local)) == local


def test_other_weights_or_another_type_are_refused_by_name(folder: Path) -> None:
    with moe_cluster_in_thread(folder) as cluster, remote_experts(cluster.target) as experts:
        experts.wait_until_ready()
        with pytest.raises(ConfigError, match=r"moe\.application: 'moe' serves other weights"):
            experts.check("0" * 64, torch.float32)
        with pytest.raises(ConfigError, match=r"engine\.dtype: expected TENSOR_DTYPE_FLOAT32"):
            experts.check(cluster.service.model.weight_hash, torch.bfloat16)


@pytest.mark.parametrize("key", [None, "wrong"])
def test_keys_are_asked_of_decoders_and_carried_to_the_shards(
    folder: Path, key: str | None
) -> None:
    with moe_cluster_in_thread(folder, api_keys=("secret",)) as cluster:
        with remote_experts(cluster.target, api_key="secret") as experts:
            assert Decoder(folder, experts).generate([[3, 4]]) != [None]
        with (
            remote_experts(cluster.target, api_key=key) as experts,
            pytest.raises(AuthenticationError),
        ):
            experts.wait_until_ready()


def test_decoders_share_batches(folder: Path, local: Tokens) -> None:
    with moe_cluster_in_thread(folder, batching={"window_s": 0.005}) as cluster:
        with decoders(cluster.target, folder) as generate:
            assert generate(list(local)) == local
        assert counted(cluster, "batch_calls_sum") > counted(cluster, "batch_calls_count") > 0


def test_tokens_are_the_same_while_experts_move(folder: Path, local: Tokens) -> None:
    with moe_cluster_in_thread(folder, num_shards=3) as cluster:
        names = list(cluster.shards)

        def move_them_about() -> None:
            for number in range(6):
                keys = cluster.service.placement.homes
                homes: Homes = {
                    key: tuple(names[(place + number + more) % 3] for more in range(1 + place % 2))
                    for place, key in enumerate(keys)
                }
                moving = cluster.service.rebalancer.move_to(homes)
                asyncio.run_coroutine_threadsafe(moving, cluster.loop).result(timeout=30)
                for name, shard in cluster.shards.items():
                    held = set(shard.service.store.keys)
                    assert held == {key for key, shards in homes.items() if name in shards}

        with decoders(cluster.target, folder) as generate:
            assert generate(list(local), move_them_about) == local
        assert cluster.service.placement.version > 6


@pytest.mark.parametrize("num_shards", [2, 4])
def test_tokens_are_the_same_while_a_rebalance_is_applied(
    folder: Path, local: Tokens, num_shards: int
) -> None:
    with (
        moe_cluster_in_thread(folder, num_shards=num_shards) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        place(cluster, next(iter(cluster.shards)))

        def rebalance() -> None:
            answer = asyncio.run(rebalanced(cluster.target))
            assert answer.applied
            assert answer.before.max_over_mean == pytest.approx(num_shards)
            assert answer.after.max_over_mean < 1.5

        assert generate(list(local), rebalance) == local
        assert all(shard.service.store.keys for shard in cluster.shards.values())


async def rebalanced(target: str) -> pb.RebalanceResponse:
    async with served_moe(target, routed=False) as served:
        answer: pb.RebalanceResponse = await served.call("Rebalance", pb.RebalanceRequest())
        return answer


@contextmanager
def shard_processes(folder: Path, count: int) -> Iterator[dict[str, ShardProcess]]:
    processes = {f"shard-{number}": ShardProcess(folder) for number in range(count)}
    try:
        for process in processes.values():
            process.start()
        yield processes
    finally:
        for process in processes.values():
            process.kill()


def on_processes(
    folder: Path, processes: dict[str, ShardProcess], **settings: Any
) -> AbstractContextManager[RunningCluster]:
    targets = {name: process.target for name, process in processes.items()}
    return moe_cluster_in_thread(folder, shard_targets=targets, **settings)


def place(cluster: RunningCluster, *shards: str) -> None:
    """All experts on each of these."""
    homes = dict.fromkeys(cluster.service.placement.homes, shards)
    moving = cluster.service.rebalancer.move_to(homes)
    asyncio.run_coroutine_threadsafe(moving, cluster.loop).result(timeout=30)


@pytest.mark.parametrize("num_shards", [2, 4])
def test_a_killed_shard_is_waited_for_until_it_is_replaced(
    folder: Path, local: Tokens, num_shards: int
) -> None:
    with (
        shard_processes(folder, num_shards) as processes,
        on_processes(folder, processes) as cluster,
        decoders(cluster.target, folder, timeout_s=60.0) as generate,
    ):

        def kill_and_replace() -> None:
            processes["shard-1"].kill()
            processes["shard-1"].start()

        assert generate(list(local), kill_and_replace) == local
        assert counted(cluster, "shard_failures_total") > 0
        check_idle(cluster.target)


@pytest.mark.parametrize("num_shards", [2, 4])
def test_a_killed_shard_is_not_missed_where_its_experts_have_replicas(
    folder: Path, local: Tokens, num_shards: int
) -> None:
    with (
        shard_processes(folder, num_shards) as processes,
        on_processes(folder, processes) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        place(cluster, *processes)
        assert generate(list(local), processes["shard-0"].kill) == local
        assert counted(cluster, "shard_failures_total") > 0


def test_a_shard_that_stays_away_ends_requests_as_unavailable(folder: Path, local: Tokens) -> None:
    failures = FAILURES.model_copy(update={"replacement_timeout_s": 0.5})
    with (
        shard_processes(folder, 2) as processes,
        on_processes(folder, processes, failures=failures) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        found = generate(list(local), processes["shard-1"].kill)
        assert None in found.values()
        assert all(tokens in (None, local[prompt]) for prompt, tokens in found.items())
        check_idle(cluster.target)
        processes["shard-1"].start()
        asyncio.run(found_again(cluster.target))
        assert generate(list(local)) == local


def test_a_silent_shard_is_hedged_where_its_experts_have_replicas(
    folder: Path, local: Tokens
) -> None:
    with (
        shard_processes(folder, 2) as processes,
        on_processes(folder, processes) as cluster,
        decoders(cluster.target, folder) as generate,
    ):
        place(cluster, *processes)
        assert generate(list(local)) == local  # how long a call usually takes
        assert generate(list(local), processes["shard-0"].stop) == local
        assert counted(cluster, "hedged_total") > 0


async def found_again(target: str) -> None:
    async with served_moe(target, routed=False) as served, asyncio.timeout(60):
        while True:
            answer = await served.call("GetPlacement", pb.GetPlacementRequest())
            if all(s.reachable and s.num_experts for s in answer.shards):
                return
            await asyncio.sleep(0.1)


def test_a_router_started_anew_goes_on_from_what_the_shards_hold(
    folder: Path, local: Tokens
) -> None:
    with shard_processes(folder, 2) as processes:
        with on_processes(folder, processes) as cluster:
            place(cluster, *processes)
        with on_processes(folder, processes) as cluster:
            homes = cluster.service.placement.homes
            assert all(len(shards) == 2 for shards in homes.values())
            with decoders(cluster.target, folder) as generate:
                asked = list(local)[:10]
                assert generate(asked) == {prompt: local[prompt] for prompt in asked}


def test_a_router_that_is_replaced_is_waited_for(folder: Path, local: Tokens) -> None:
    with ExitStack() as stack:
        first = ExitStack()
        cluster = first.enter_context(moe_cluster_in_thread(folder))
        port = int(cluster.target.rpartition(":")[2])
        generate = stack.enter_context(decoders(cluster.target, folder, timeout_s=60.0))

        def replace() -> None:
            first.close()
            stack.enter_context(moe_cluster_in_thread(folder, port=port))

        assert generate(list(local), replace) == local


def test_a_router_that_is_replaced_by_another_models_is_not_believed(
    folder: Path, tmp_path: Path
) -> None:
    other = moe_folder(tmp_path / "other", seed=1)
    with ExitStack() as stack:
        with moe_cluster_in_thread(folder) as cluster:
            experts = stack.enter_context(remote_experts(cluster.target))
            decoder = Decoder(folder, experts)
            experts.check(decoder.engine.model.weight_hash, decoder.engine.model.dtype)
            assert decoder.generate([[5, 6, 7]]) != [None]
        port = int(cluster.target.rpartition(":")[2])
        with moe_cluster_in_thread(other, port=port):
            assert decoder.generate([[5, 6, 7]]) == [None]


def test_a_router_that_is_not_there_ends_requests_as_unavailable(folder: Path) -> None:
    with ExitStack() as stack:
        with moe_cluster_in_thread(folder) as cluster:
            experts = stack.enter_context(remote_experts(cluster.target, timeout_s=0.5))
            decoder = Decoder(folder, experts)
            assert decoder.generate([[5, 6, 7]]) != [None]
        assert decoder.generate([[5, 6, 7]]) == [None]
        assert decoder.generate([[5, 6, 7]]) == [None]
    with (
        remote_experts("127.0.0.1:9", timeout_s=0.3) as experts,
        pytest.raises(ExpertsUnavailableError, match="cannot be reached"),
    ):
        Decoder(folder, experts)
