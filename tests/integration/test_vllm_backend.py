"""The vLLM backend against vLLM's real CPU build, in the environment of `make test-vllm`.

The servicer and the contract are the same as for the native engine, so what differs is tested: the
translation both ways, what is refused, and that both backends decode the same greedy tokens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM lives in an environment of its own: make test-vllm")

from orrery.v1 import generation_pb2 as pb
from services.engine.config import EngineConfig
from services.engine.errors import ConfigError
from services.generation.backends import load_backend
from services.generation.config import GenerationConfig, VLLMConfig
from services.generation.native import NativeBackend
from services.runtime.metrics import PrometheusRegistry
from tests.contract.served import (
    Served,
    chat,
    ends,
    greedy,
    is_idle,
    joined,
    refusal,
    text,
    token_ids,
    tokens,
)
from tests.fakes.generation_server import generation_server

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM's own dependencies warn about each other at import.
    pytest.mark.filterwarnings("default"),
]

FOLDER = Path(__file__).resolve().parents[2] / "models" / "orrery-llama"
MODEL = "orrery-llama"
PROMPT = "The observatory of"
LABELS = {"service": "generation", "model": MODEL}

CONFIG = GenerationConfig(
    model_name=MODEL,
    model_path=str(FOLDER),
    backend="vllm",
    vllm=VLLMConfig(
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=8,
        max_num_waiting=64,
        kv_cache_memory_bytes=64 << 20,
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _cpu_settings() -> None:
    """What vLLM's CPU build reads from the environment before it starts its engine process."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.argv = sys.argv[:1]  # vLLM's engine process would parse pytest's arguments


@pytest.fixture(scope="module")
def registry() -> PrometheusRegistry:
    return PrometheusRegistry(LABELS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(registry: PrometheusRegistry) -> AsyncIterator[Served]:
    backend = await load_backend(CONFIG, str(FOLDER), registry)
    try:
        async with (
            generation_server(backend, CONFIG) as server,
            grpc.aio.insecure_channel(server.target) as channel,
        ):
            yield Served(server.target, channel, (), MODEL, FOLDER, None, exact=True)
    finally:
        await backend.close()


async def test_greedy_tokens_equal_the_native_engines(served: Served) -> None:
    config = GenerationConfig(
        model_name=MODEL,
        model_path=str(FOLDER),
        engine=EngineConfig(dtype="float32", num_threads=1, attention_backend="reference"),
    )
    native = await NativeBackend.start(config, str(FOLDER), PrometheusRegistry(LABELS))
    prompts = [text(PROMPT), chat("Hello"), text("The lamp keeper"), tokens([5, 6, 7, 8])]
    async with (
        generation_server(native, config) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        ours = Served(server.target, channel, (), MODEL, FOLDER, None, exact=True)
        for prompt in prompts:
            request = pb.GenerateRequest(prompt=prompt, sampling=greedy(max_tokens=24))
            theirs, own = await served.generate(request), await ours.generate(request)
            assert token_ids(theirs) == token_ids(own)
            assert joined(theirs) == joined(own)
            assert list(theirs[0].prompt_token_ids) == list(own[0].prompt_token_ids)
        score = pb.ScoreRequest(target=text("The observatory of the northern coast."))
        theirs_score, own_score = await served.stub.Score(score), await ours.stub.Score(score)
        assert theirs_score.num_scored_tokens == own_score.num_scored_tokens
        assert theirs_score.total_logprob == pytest.approx(own_score.total_logprob, abs=1e-2)
    await native.close()


async def test_model_tells_vllm_and_the_same_shape(served: Served) -> None:
    info = await served.info()
    assert (info.backend, info.family, info.model) == ("vllm", "llama", MODEL)
    assert (info.hidden_size, info.num_layers) == (128, 5)
    assert (info.num_heads, info.num_kv_heads, info.head_dim) == (4, 2, 32)
    assert info.num_parameters > 1_000_000
    assert info.cache.num_blocks > 0
    assert info.has_chat_template


async def test_usage_timing_and_one_end(served: Served) -> None:
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=12))
    messages = await served.generate(request)
    assert ends(messages) == {0: pb.FINISH_REASON_LENGTH}
    assert messages[-1].usage.completion_tokens == 12
    assert messages[-1].usage.prompt_tokens == len(messages[0].prompt_token_ids)
    assert messages[-1].timing.decode_ns > 0


async def test_choices_seeds_and_logprobs(served: Served) -> None:
    sampling = pb.SamplingParams(
        max_tokens=8, n=3, seed=5, temperature=1.5, ignore_eos=True, logprobs=2
    )
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling)
    first, second = await served.generate(request), await served.generate(request)
    assert ends(first) == dict.fromkeys(range(3), pb.FINISH_REASON_LENGTH)
    for index in range(3):
        assert token_ids(first, index) == token_ids(second, index)
    entries = [e for m in first for d in m.choices for e in d.logprobs if d.index == 0]
    assert [entry.chosen.token_id for entry in entries] == token_ids(first)
    assert all(len(entry.top) == 2 and entry.top[0].rank == 1 for entry in entries)


async def test_stop_string_is_cut_and_named(served: Served) -> None:
    free = joined(
        await served.generate(
            pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=32))
        )
    )
    stop = free[len(free) // 2 :][:4]
    cut = await served.generate(
        pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=32, stop=[stop]))
    )
    assert joined(cut) == free[: free.index(stop)]
    assert cut[-1].choices[0].stop_string == stop


async def test_end_of_sequence_is_named(served: Served) -> None:
    sampling = pb.SamplingParams(max_tokens=200, temperature=0)
    messages = await served.generate(pb.GenerateRequest(prompt=chat("Hello"), sampling=sampling))
    last = messages[-1].choices[0]
    assert last.finish_reason == pb.FINISH_REASON_STOP
    assert last.WhichOneof("stop_reason") == "stop_token_id"


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (pb.SamplingParams(typical_p=0.5), "typical_p"),
        (pb.SamplingParams(banned_token_ids=[3]), "banned_token_ids"),
        (pb.SamplingParams(best_of=3), "best_of"),
        (pb.SamplingParams(beam_width=3), "beam_width"),
        (pb.SamplingParams(temperature=-1.0), "temperature"),
        (pb.SamplingParams(logit_bias={1_000_000: 1.0}), "logit_bias"),
    ],
)
async def test_what_vllm_cannot_do_is_refused_by_name(
    served: Served, sampling: pb.SamplingParams, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
    assert refusal(caught.value).field == field


async def test_prompt_over_the_context_is_context_too_long(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.generate(pb.GenerateRequest(prompt=tokens([1] * 2000)))
    assert refusal(caught.value).reason == "CONTEXT_TOO_LONG"


async def test_deadline_is_deadline_exceeded_and_cancelled_streams_leave_nothing(
    served: Served,
) -> None:
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=900))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in served.stub.Generate(request, metadata=(("x-timeout-ms", "100"),)):
            pass
    assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"
    calls = [served.stub.Generate(request) for _ in range(20)]
    await calls[0].read()
    await asyncio.sleep(0.1)
    for call in calls:
        call.cancel()
    assert is_idle(await served.wait_until_idle(limit_s=10.0))


async def test_statistics_become_the_same_metrics(
    served: Served, registry: PrometheusRegistry
) -> None:
    await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=4)))
    sample = registry.collector.get_sample_value
    assert (sample("orrery_time_to_first_token_seconds_count", LABELS) or 0) > 0
    assert (sample("orrery_generation_tokens_total", LABELS) or 0) >= 4
    assert (await served.load()).num_finished > 0


async def test_folder_without_tokenizer_fails_the_start_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        await load_backend(CONFIG, str(tmp_path), PrometheusRegistry(LABELS))
