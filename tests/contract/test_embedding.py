"""What every caller of the embedding service may rely on, in-process and on the platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sentence_transformers import SentenceTransformer

from orrery.v1 import embedding_pb2 as pb
from services.embedding.loading import Models, load_models
from tests.contract.embedding_served import (
    CONFIG,
    MIN_COSINE,
    ServedEmbedding,
    in_process,
    is_idle,
    model_folder,
    on_platform,
    platform_target,
    text,
    tokens,
)
from tests.contract.served import refusal

TEXTS = (
    "The observatory of Kelm opened in 1911.",
    "a",
    "  spaces   before, within and after  ",
    "naïve — ünïcode ✓ 日本語 🙂",
    "[CLS] written out [SEP]",
    "word " * 150,
)
DIMENSIONS = 384
CONTEXT = 256


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """The default model in float32, loaded once."""
    # Asked for from inside a running event loop: loading needs a loop in another thread.
    with ThreadPoolExecutor(max_workers=1) as elsewhere:
        loaded = elsewhere.submit(asyncio.run, load_models(CONFIG, model_folder(), None)).result()
    yield loaded
    loaded.close()


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def embedding(request: pytest.FixtureRequest) -> AsyncIterator[ServedEmbedding]:
    """The application under test. After each test nothing may be left running in it."""
    if request.param == "in-process":
        context = in_process(request.getfixturevalue("models"))
    else:
        context = on_platform(platform_target(lambda: request.getfixturevalue("platform")))
    async with context as application:
        yield application
        load = await application.wait_until_idle(limit_s=10.0)
        assert is_idle(load), f"something is still held: {load}"


@pytest.fixture(scope="module")
def encode() -> SentenceTransformer:
    return SentenceTransformer(model_folder(), device="cpu", local_files_only=True)


def vectors(response: pb.EmbedTextResponse) -> np.ndarray:
    return np.array([embedding.values for embedding in response.embeddings], dtype=np.float32)


async def refused(awaitable: object, code: grpc.StatusCode, reason: str, field: str | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    said = refusal(caught.value)
    assert (said.code, said.reason, said.field) == (code, reason, field)


async def test_vectors_are_those_of_sentence_transformers(
    embedding: ServedEmbedding, encode: SentenceTransformer
) -> None:
    response = await embedding.embed(TEXTS)
    got, want = vectors(response), encode.encode(list(TEXTS))
    assert got.shape == (len(TEXTS), DIMENSIONS)
    assert (got * want).sum(axis=1).min() >= MIN_COSINE
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    if embedding.exact:
        np.testing.assert_allclose(got, want, atol=1e-5)
    lengths = [len(ids) for ids in encode.tokenizer(list(TEXTS))["input_ids"]]
    assert [item.num_tokens for item in response.embeddings] == lengths
    assert response.usage.prompt_tokens == sum(lengths)
    assert not any(item.truncated for item in response.embeddings)
    assert response.model == (await embedding.model()).model
    assert response.request_id
    assert response.timing.total_ns > 0


async def test_repeated_inputs_get_the_same_vector_each_in_its_place(
    embedding: ServedEmbedding,
) -> None:
    response = await embedding.embed([TEXTS[0], TEXTS[1], TEXTS[0]])
    got = vectors(response)
    np.testing.assert_array_equal(got[0], got[2])
    assert not np.allclose(got[0], got[1])


async def test_many_concurrent_calls_get_their_own_vectors(
    embedding: ServedEmbedding, encode: SentenceTransformer
) -> None:
    calls = [[f"call {call} text {number} " * (1 + call % 7) for number in range(3)]
             for call in range(30)]  # fmt: skip
    responses = await asyncio.gather(*(embedding.embed(texts) for texts in calls))
    for texts, response in zip(calls, responses, strict=True):
        want = encode.encode(texts)
        assert (vectors(response) * want).sum(axis=1).min() >= MIN_COSINE


async def test_fewer_dimensions_are_the_first_ones_of_unit_length(
    embedding: ServedEmbedding,
) -> None:
    whole = vectors(await embedding.embed(TEXTS))
    cut = vectors(await embedding.embed(TEXTS, dimensions=64))
    want = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, want, atol=1e-5 if embedding.exact else 1e-2)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1.0, atol=1e-5)


async def test_token_ids_give_the_vectors_of_their_text(
    embedding: ServedEmbedding, encode: SentenceTransformer
) -> None:
    ids = encode.tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
    request = pb.EmbedTextRequest(inputs=[tokens(row) for row in ids])
    by_ids = await embedding.stub.EmbedText(request, metadata=embedding.metadata)
    by_text = await embedding.embed(TEXTS)
    assert (vectors(by_ids) * vectors(by_text)).sum(axis=1).min() >= 0.9999
    assert [item.num_tokens for item in by_ids.embeddings] == [
        item.num_tokens for item in by_text.embeddings
    ]


async def test_an_input_too_long_is_refused_by_name(embedding: ServedEmbedding) -> None:
    await refused(
        embedding.embed(["short", "word " * (CONTEXT - 1)]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "CONTEXT_TOO_LONG",
        "inputs[1]",
    )
    fits = await embedding.embed(["word " * (CONTEXT - 2)])
    assert fits.embeddings[0].num_tokens == CONTEXT


async def test_an_input_too_long_is_cut_and_marked_where_that_is_asked(
    embedding: ServedEmbedding, encode: SentenceTransformer
) -> None:
    long = "one two three four five " * 200
    response = await embedding.embed(["short", long], truncate=True)
    assert [item.truncated for item in response.embeddings] == [False, True]
    assert response.embeddings[1].num_tokens == CONTEXT
    want = encode.encode(["short", long])  # cuts likewise
    assert (vectors(response) * want).sum(axis=1).min() >= MIN_COSINE


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.EmbedTextRequest(), "inputs"),
        (pb.EmbedTextRequest(inputs=[text("a")] * 2049), "inputs"),
        (pb.EmbedTextRequest(inputs=[text("a"), text("")]), "inputs[1]"),
        (pb.EmbedTextRequest(inputs=[text(" \n\t")]), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[pb.EmbeddingInput()]), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[text("a"), tokens([])]), "inputs[1]"),
        (pb.EmbedTextRequest(inputs=[tokens([5, 30522])]), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[tokens([2**32 - 1])]), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[text("x" * ((256 << 10) + 1))], truncate=True), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[text("é" * ((128 << 10) + 1))], truncate=True), "inputs[0]"),
        (pb.EmbedTextRequest(inputs=[text("a")], dimensions=0), "dimensions"),
        (pb.EmbedTextRequest(inputs=[text("a")], dimensions=DIMENSIONS + 1), "dimensions"),
        (pb.EmbedTextRequest(inputs=[text("a")], purpose=9), "purpose"),
    ],
)
async def test_bad_input_is_refused_by_name(
    embedding: ServedEmbedding, request_: pb.EmbedTextRequest, field: str
) -> None:
    await refused(
        embedding.stub.EmbedText(request_, metadata=embedding.metadata),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        field,
    )
    assert (await embedding.embed(["still there"])).embeddings


async def test_a_large_text_is_cut_where_that_is_asked(embedding: ServedEmbedding) -> None:
    response = await embedding.embed(["lamp " * 50_000], truncate=True)
    assert response.embeddings[0].truncated


async def test_another_model_is_not_found(embedding: ServedEmbedding) -> None:
    calls = (
        embedding.embed(["a"], model="another"),
        embedding.rerank("a", ["b"], model="another"),
        embedding.stub.GetEmbeddingModel(
            pb.GetEmbeddingModelRequest(model="another"), metadata=embedding.metadata
        ),
    )
    for call in calls:
        await refused(call, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model")


async def test_reranks_by_cosine_where_there_is_no_cross_encoder(
    embedding: ServedEmbedding, encode: SentenceTransformer
) -> None:
    query = "Which animal says meow?"
    passages = ["A car is parked outside.", "The cat says meow.", "Dogs bark at night."]
    response = await embedding.rerank(query, passages)
    want = encode.encode(passages) @ encode.encode(query)
    assert response.method == pb.RERANK_METHOD_BI_ENCODER
    assert [result.index for result in response.results] == np.argsort(-want).tolist()
    got = [result.score for result in response.results]
    np.testing.assert_allclose(got, np.sort(want)[::-1], atol=1e-5 if embedding.exact else 0.02)
    assert response.model == (await embedding.model()).model
    assert response.usage.prompt_tokens > 0
    assert response.timing.rerank_ns > 0
    best = await embedding.rerank(query, passages, top_n=1)
    assert [result.index for result in best.results] == [1]
    everything = await embedding.rerank(query, passages, top_n=99)
    assert len(everything.results) == 3


async def test_reranking_cuts_what_is_too_long(embedding: ServedEmbedding) -> None:
    response = await embedding.rerank("word " * 1000, ["word " * 1000, "another thing"])
    assert [result.index for result in response.results] == [0, 1]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RerankRequest(query="a"), "passages"),
        (pb.RerankRequest(query="a", passages=["b"] * 2049), "passages"),
        (pb.RerankRequest(query="", passages=["b"]), "query"),
        (pb.RerankRequest(query="a", passages=["b", " "]), "passages[1]"),
        (pb.RerankRequest(query="a", passages=["b"], top_n=0), "top_n"),
        (pb.RerankRequest(query="a", passages=["b"], method=77), "method"),
        (
            pb.RerankRequest(query="a", passages=["b"], method=pb.RERANK_METHOD_CROSS_ENCODER),
            "method",
        ),
    ],
)
async def test_a_bad_reranking_is_refused_by_name(
    embedding: ServedEmbedding, request_: pb.RerankRequest, field: str
) -> None:
    await refused(
        embedding.stub.Rerank(request_, metadata=embedding.metadata),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        field,
    )


async def test_model_tells_its_shape_and_limits(embedding: ServedEmbedding) -> None:
    model = await embedding.model()
    assert (model.dimensions, model.max_input_tokens) == (DIMENSIONS, CONTEXT)
    assert (model.max_batch_inputs, model.max_input_bytes) == (2048, 256 << 10)
    assert model.normalized
    assert model.dtype in ("float32", "bfloat16")
    assert len(bytes.fromhex(model.weight_hash)) == 32
    assert model.reranker == ""
    assert model.created_s > 0


async def test_load_tells_what_runs_and_waits(embedding: ServedEmbedding) -> None:
    texts = [f"number {number} of many texts that take a while" for number in range(400)]
    call = asyncio.create_task(embedding.embed(texts))
    load = await embedding.load()
    while not load.num_running_inputs and not call.done():
        load = await embedding.load()
    assert load.num_running == 1
    assert load.num_waiting_inputs + load.num_running_inputs <= 400
    assert load.resident_bytes > 1 << 20
    response = await call
    assert len(response.embeddings) == 400
    after = await embedding.load()
    assert after.process_id == load.process_id
    assert after.num_inputs_done == load.num_inputs_done + 400
    assert after.num_tokens_done == load.num_tokens_done + response.usage.prompt_tokens


async def test_a_cancelled_call_leaves_nothing_waiting(embedding: ServedEmbedding) -> None:
    texts = [f"to be cancelled {number} " * 20 for number in range(1000)]
    request = pb.EmbedTextRequest(inputs=[text(value) for value in texts])
    call = embedding.stub.EmbedText(request, metadata=embedding.metadata)
    while not (await embedding.load()).num_running_inputs:  # noqa: ASYNC110 - a remote state
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    load = await embedding.wait_until_idle(limit_s=5.0)  # a thousand would take far longer
    assert is_idle(load)


async def test_a_deadline_ends_a_call_and_takes_back_what_waits(
    embedding: ServedEmbedding,
) -> None:
    texts = [f"too late {number} " * 20 for number in range(1000)]
    request = pb.EmbedTextRequest(inputs=[text(value) for value in texts])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await embedding.stub.EmbedText(
            request, metadata=(*embedding.metadata, ("x-timeout-ms", "300"))
        )
    said = refusal(caught.value)
    assert (said.code, said.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert is_idle(await embedding.wait_until_idle(limit_s=5.0))


async def test_health_says_serving(embedding: ServedEmbedding) -> None:
    stub = health_pb2_grpc.HealthStub(embedding.channel)
    for service in ("", "orrery.v1.EmbeddingService"):
        response = await stub.Check(
            health_pb2.HealthCheckRequest(service=service), metadata=embedding.metadata
        )
        assert response.status == health_pb2.HealthCheckResponse.SERVING
