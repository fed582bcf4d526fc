"""The service with prompts, a cache and a cross-encoder, in an outage and under overload."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from orrery.v1 import embedding_pb2 as pb
from services.embedding.config import BatchingConfig, EmbeddingConfig, RerankerConfig
from services.embedding.cross_encoder import PairScorer
from services.embedding.loading import Models, load_models
from services.embedding.text_encoder import TextEncoder
from tests.contract.embedding_served import ServedEmbedding, in_process, tokens
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer, redis_server
from tests.unit.embedding.conftest import PROMPTS
from tests.unit.embedding.texts import TEXTS

CROSS = pb.RERANK_METHOD_CROSS_ENCODER
QUERY, PASSAGE = pb.EMBEDDING_PURPOSE_QUERY, pb.EMBEDDING_PURPOSE_PASSAGE


@pytest.fixture
def config(cls_folder: Path, scorer_folder: Path) -> EmbeddingConfig:
    return EmbeddingConfig(
        model_name="tiny",
        model_path=str(cls_folder),
        dtype="float32",
        num_threads=1,
        reranker=RerankerConfig(name="tiny-scorer", path=str(scorer_folder)),
    )


@pytest.fixture
async def models(config: EmbeddingConfig, scorer_folder: Path) -> AsyncIterator[Models]:
    loaded = await load_models(config, config.model_path, str(scorer_folder))
    yield loaded
    loaded.close()


@pytest.fixture
async def served(config: EmbeddingConfig, models: Models) -> AsyncIterator[ServedEmbedding]:
    async with in_process(models, config) as application:
        yield application


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", appendonly=False) as running:
        yield running


def vectors(response: pb.EmbedTextResponse) -> np.ndarray:
    return np.array([embedding.values for embedding in response.embeddings], dtype=np.float32)


@pytest.mark.parametrize(
    ("purpose", "prompt"), [(QUERY, PROMPTS["query"]), (PASSAGE, PROMPTS["passage"]), (0, "")]
)
async def test_a_purpose_puts_its_prompt_before_text_and_token_ids(
    served: ServedEmbedding, cls_folder: Path, purpose: int, prompt: str
) -> None:
    reference = SentenceTransformer(str(cls_folder), device="cpu", local_files_only=True)
    want = reference.encode(list(TEXTS), prompt=prompt)
    by_text = await served.embed(TEXTS, purpose=purpose, truncate=True)
    np.testing.assert_allclose(vectors(by_text), want, atol=1e-5)
    ids = reference.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    request = pb.EmbedTextRequest(inputs=[tokens(ids)], purpose=purpose)
    by_ids = await served.stub.EmbedText(request)
    np.testing.assert_allclose(vectors(by_ids)[0], want[0], atol=1e-5)


async def test_dimensions_make_unit_length_of_a_model_that_does_not(
    served: ServedEmbedding,
) -> None:
    whole = vectors(await served.embed(TEXTS[:3]))
    cut = vectors(await served.embed(TEXTS[:3], dimensions=7))
    want = whole[:, :7] / np.linalg.norm(whole[:, :7], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, want, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"method": 1}, {"model": "tiny-scorer"}])
async def test_reranks_by_the_cross_encoder(
    served: ServedEmbedding, scorer_folder: Path, fields: dict[str, object]
) -> None:
    reference = CrossEncoder(str(scorer_folder), device="cpu", local_files_only=True)
    want = reference.predict([("When?", value) for value in TEXTS])
    response = await served.rerank("When?", TEXTS, **fields)
    assert (response.method, response.model) == (pb.RERANK_METHOD_CROSS_ENCODER, "tiny-scorer")
    scores = {result.index: result.score for result in response.results}
    np.testing.assert_allclose([scores[i] for i in range(len(TEXTS))], want, atol=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert (await served.model()).reranker == "tiny-scorer"


async def test_the_bi_encoder_is_there_beside_the_cross_encoder(served: ServedEmbedding) -> None:
    response = await served.rerank("When?", TEXTS, method=pb.RERANK_METHOD_BI_ENCODER)
    assert (response.method, response.model) == (pb.RERANK_METHOD_BI_ENCODER, "tiny")
    query = vectors(await served.embed(["When?"], purpose=QUERY, dimensions=48))
    passages = vectors(await served.embed(TEXTS, purpose=PASSAGE, dimensions=48, truncate=True))
    want = (passages @ query[0])[[result.index for result in response.results]]
    unit = np.linalg.norm(query) * np.linalg.norm(passages, axis=1)
    want /= unit[[result.index for result in response.results]]
    np.testing.assert_allclose([result.score for result in response.results], want, atol=1e-5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.rerank("a", ["b"], model="tiny-scorer", method=pb.RERANK_METHOD_BI_ENCODER)
    assert refusal(caught.value).field == "method"


async def test_a_long_query_for_many_passages_is_refused_before_it_costs(
    config: EmbeddingConfig, models: Models
) -> None:
    limits = config.limits.model_copy(update={"max_pair_chars": 100})
    async with in_process(models, config.model_copy(update={"limits": limits})) as served:
        await served.rerank("q" * 20, ["p" * 30] * 2, method=CROSS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.rerank("q" * 20, ["p" * 5] * 5, method=CROSS)
        assert refusal(caught.value).field == "passages"
        await served.rerank("q" * 20, ["p" * 5] * 5, method=pb.RERANK_METHOD_BI_ENCODER)


async def test_the_cache_answers_the_second_time_and_serves_any_dimensions(
    config: EmbeddingConfig, models: Models, server: RedisServer
) -> None:
    async with in_process(models, config, server.url) as served:
        first = await served.embed(TEXTS[:3])
        assert not any(item.cached for item in first.embeddings)
        assert first.usage.cached_tokens == 0
        await _until_cached(served, TEXTS[:3])
        second = await served.embed([*TEXTS[:3], TEXTS[3]])
        np.testing.assert_array_equal(vectors(second)[:3], vectors(first))
        assert [item.cached for item in second.embeddings] == [True, True, True, False]
        assert second.usage.cached_tokens == first.usage.prompt_tokens
        assert (await served.embed(TEXTS[:1], dimensions=5)).embeddings[0].cached
        assert not (await served.embed(TEXTS[:1], purpose=QUERY)).embeddings[0].cached
        load = await served.load()
        assert load.cache_available
        assert load.cache_hits >= 7
    async with in_process(models, config, server.url) as replica:
        assert (await replica.embed(TEXTS[:1])).embeddings[0].cached


async def test_a_setting_that_changes_the_vectors_finds_none_of_before(
    config: EmbeddingConfig, models: Models, server: RedisServer
) -> None:
    async with in_process(models, config, server.url) as served:
        await _until_cached(served, TEXTS[:1])
    unit = config.model_copy(update={"normalize": True})
    other = await load_models(unit, unit.model_path, None)
    async with in_process(other, unit, server.url) as served:
        response = await served.embed(TEXTS[:1])
        assert not response.embeddings[0].cached
        assert np.linalg.norm(vectors(response)[0]) == pytest.approx(1)
    other.close()


async def test_without_redis_the_service_goes_on_and_says_so(
    config: EmbeddingConfig, models: Models, server: RedisServer
) -> None:
    async with in_process(models, config, server.url) as served:
        await served.embed(TEXTS[:3])
        await _until_cached(served, TEXTS[:3])
        server.kill()
        during = [await served.embed(TEXTS[:3]) for _ in range(3)]
        assert not any(item.cached for response in during for item in response.embeddings)
        assert not (await served.load()).cache_available
        server.restart()
        while not (await served.load()).cache_available:  # noqa: ASYNC110 - a remote state
            await asyncio.sleep(0.05)
        await served.embed(TEXTS[:3])
        await _until_cached(served, TEXTS[:3])


async def test_a_full_queue_refuses_and_says_when_to_come_back(
    config: EmbeddingConfig, models: Models
) -> None:
    small = config.model_copy(
        update={
            "batching": BatchingConfig(max_tokens_per_batch=16, max_waiting_inputs=20),
            "limits": config.limits.model_copy(update={"max_inputs": 19}),
        }
    )
    async with in_process(models, small) as served:
        calls = [
            asyncio.create_task(served.embed([f"call {call} text {n}" for n in range(15)]))
            for call in range(12)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [item for item in outcomes if isinstance(item, grpc.aio.AioRpcError)]
        answered = [item for item in outcomes if isinstance(item, pb.EmbedTextResponse)]
        assert refused
        assert answered
        assert {refusal(item).reason for item in refused} == {"OVERLOADED"}
        assert {item.code() for item in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert (await served.embed(["there is room again"])).embeddings


async def test_no_more_inputs_are_taken_than_have_their_vectors_in_an_answer(
    config: EmbeddingConfig, models: Models
) -> None:
    many = config.model_copy(
        update={
            "batching": BatchingConfig(max_waiting_inputs=200_000),
            "limits": config.limits.model_copy(update={"max_inputs": 100_000}),
        }
    )
    async with in_process(models, many) as served:
        model = await served.model()
    assert model.max_batch_inputs * model.dimensions * 4 == 15 << 20


async def test_the_models_are_loaded_and_run_by_one_thread_beside_the_event_loop(
    config: EmbeddingConfig, scorer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"load": set(), "embed": set(), "score": set()}

    def noting(kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            threads[kind].add(threading.get_ident())
            return work(*args)

        return run

    monkeypatch.setattr(TextEncoder, "__init__", noting("load", TextEncoder.__init__))
    monkeypatch.setattr(TextEncoder, "embed", noting("embed", TextEncoder.embed))
    monkeypatch.setattr(PairScorer, "score", noting("score", PairScorer.score))
    models = await load_models(config, config.model_path, str(scorer_folder))
    async with in_process(models, config) as served:
        await asyncio.gather(*(served.embed([f"text {n}"]) for n in range(20)))
        await asyncio.gather(*(served.rerank("a", [f"text {n}"]) for n in range(20)))
    models.close()
    assert threads["load"] == threads["embed"] == threads["score"]
    assert len(threads["load"]) == 1
    assert threading.get_ident() not in threads["load"]


async def _until_cached(served: ServedEmbedding, texts: tuple[str, ...]) -> None:
    """Vectors are written after the answer."""
    for _ in range(200):
        response = await served.embed(texts)
        if all(item.cached for item in response.embeddings):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the vectors did not come to the cache")
