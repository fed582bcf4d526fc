"""The generation service with `experts: service`: what its clients get, whatever the experts do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from orrery.v1 import generation_pb2 as pb
from orrery.v1.generation_pb2_grpc import GenerationServiceStub
from services.engine.errors import ConfigError, ExpertsUnavailableError
from services.generation.backend import Backend
from services.generation.backends import load_backend
from services.generation.config import GenerationConfig, RemoteExpertsConfig
from services.generation.remote_experts import RemoteExperts
from services.runtime.metrics import PrometheusRegistry
from tests.contract.moe_served import ENGINE, Decoder, prompts
from tests.contract.served import greedy, refusal, token_ids, tokens
from tests.fakes.generation_server import generation_server
from tests.fakes.moe_cluster import FAILURES, RunningCluster, moe_cluster
from tests.fakes.moe_model import moe_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


def settings(folder: Path, target: str, **changes: Any) -> GenerationConfig:
    moe = RemoteExpertsConfig(
        application="moe", grpc_target=target, timeout_s=10.0, start_timeout_s=0.5
    )
    whole = {"model_name": "tiny-moe", "model_path": str(folder), "engine": ENGINE, **changes}
    return GenerationConfig(experts="service", moe=moe, **whole)


@asynccontextmanager
async def backend(config: GenerationConfig) -> AsyncIterator[Backend]:
    """As the deployment loads it."""
    assert config.moe is not None
    experts = RemoteExperts(config.moe, None)
    registry = PrometheusRegistry({"service": "generation", "model": config.model_name})
    try:
        loaded = await load_backend(config, config.model_path, registry, experts)
    except BaseException:
        experts.close()
        raise
    try:
        yield loaded
    finally:
        await loaded.close()


@asynccontextmanager
async def served(folder: Path, cluster: RunningCluster) -> AsyncIterator[GenerationServiceStub]:
    config = settings(folder, cluster.target)
    async with (
        backend(config) as loaded,
        generation_server(loaded, config) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield GenerationServiceStub(channel)


def request(prompt: list[int]) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=tokens(prompt), sampling=greedy(max_tokens=8))


async def generate(stub: GenerationServiceStub, prompt: list[int]) -> list[int]:
    return token_ids([message async for message in stub.Generate(request(prompt), timeout=60)])


async def test_tokens_are_those_of_local_experts(folder: Path) -> None:
    asked = prompts(6)
    async with moe_cluster(folder) as cluster, served(folder, cluster) as stub:
        found = [await generate(stub, prompt) for prompt in asked]
        assert found == Decoder(folder).generate(asked)
        assert cluster.service.dispatcher.num_tokens_done > 0


async def test_experts_that_stay_away_end_a_call_as_unavailable(folder: Path) -> None:
    failures = FAILURES.model_copy(update={"replacement_timeout_s": 0.3})
    async with (
        moe_cluster(folder, failures=failures) as cluster,
        served(folder, cluster) as stub,
    ):
        for shard in cluster.shards.values():
            await shard.server.stop(None)
        for _ in range(2):  # the engine lives on
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await generate(stub, [5, 6, 7])
            said = refusal(caught.value)
            assert (said.code, said.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_DOWN")
            assert said.retry_after_s == 1.0


async def test_another_type_is_refused_by_the_name_of_the_setting(folder: Path) -> None:
    engine = ENGINE.model_copy(update={"dtype": "bfloat16"})
    async with moe_cluster(folder, dtype="float32") as cluster:
        with pytest.raises(ConfigError, match=r"engine\.dtype: expected TENSOR_DTYPE_FLOAT32"):
            async with backend(settings(folder, cluster.target, engine=engine)):
                pass


async def test_other_weights_are_refused_before_they_compute(folder: Path, tmp_path: Path) -> None:
    other = moe_folder(tmp_path / "other", num_hidden_layers=2)
    async with moe_cluster(folder) as cluster:
        with pytest.raises(ConfigError, match=r"moe\.application: 'moe' serves other weights"):
            async with backend(settings(other, cluster.target)):
                pass
        assert cluster.service.dispatcher.num_tokens_done == 0


async def test_a_router_that_never_answers_is_named_at_the_start(folder: Path) -> None:
    with pytest.raises(ExpertsUnavailableError, match="'moe' cannot be reached"):
        async with backend(settings(folder, "127.0.0.1:9")):
            pass
