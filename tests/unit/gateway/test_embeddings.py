"""`/v1/embeddings` and `/v1/rerank`: shapes, formats, names, what is refused."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import pytest

from orrery.v1 import common_pb2, generation_pb2
from orrery.v1 import embedding_pb2 as pb
from services.gateway.config import GatewayConfig
from services.runtime.errors import ContextTooLong, InvalidRequest, ModelNotFound
from tests.unit.gateway.conftest import OpenScripted
from tests.unit.gateway.scripted_upstream import ScriptedUpstream

VECTORS = ([0.1, 0.2, -0.3], [1.0, 0.0, 2.5e-8])
INFO = pb.GetEmbeddingModelResponse(
    model="mini", dimensions=3, max_input_tokens=256, reranker="cross", created_s=7
)


def model_of(request: pb.GetEmbeddingModelRequest) -> pb.GetEmbeddingModelResponse:
    if request.model not in ("", "mini", "alias"):
        raise ModelNotFound("not mine", field="model")
    return INFO


def embedded(**changes: Any) -> ScriptedUpstream:
    answer = pb.EmbedTextResponse(
        request_id="r",
        model="mini",
        embeddings=[pb.Embedding(values=values, num_tokens=3) for values in VECTORS],
        usage=common_pb2.Usage(prompt_tokens=6),
    )
    return ScriptedUpstream({"GetEmbeddingModel": model_of, "EmbedText": answer} | changes)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("a", [pb.EmbeddingInput(text="a")]),
        (["a", "b"], [pb.EmbeddingInput(text="a"), pb.EmbeddingInput(text="b")]),
        ([1, 2], [pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=[1, 2]))]),
        (
            [[1], [2, 3]],
            [
                pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=[1])),
                pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=[2, 3])),
            ],
        ),
    ],
)
async def test_four_forms_of_input_reach_the_service(
    open_scripted: OpenScripted, given: Any, sent: list[pb.EmbeddingInput]
) -> None:
    upstream = embedded()
    body = {"model": "alias", "input": given, "dimensions": 2, "purpose": "query"}
    async with open_scripted(upstream) as client:
        response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    (request,) = upstream.requests("EmbedText")
    assert list(request.inputs) == sent
    assert (request.model, request.dimensions) == ("mini", 2)
    assert request.purpose == pb.EMBEDDING_PURPOSE_QUERY
    assert not request.HasField("truncate")


async def test_floats_and_base64_are_the_same_numbers(open_scripted: OpenScripted) -> None:
    async with open_scripted(embedded()) as client:
        body = {"model": "mini", "input": ["a", "b"]}
        floats = (await client.post("/v1/embeddings", json=body)).json()
        coded = await client.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    assert floats["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [entry["index"] for entry in floats["data"]] == [0, 1]
    for entry, other, values in zip(floats["data"], coded.json()["data"], VECTORS, strict=True):
        assert entry["embedding"] == pytest.approx(values)
        assert "truncated" not in entry
        data = base64.b64decode(other["embedding"])
        assert struct.unpack("<3f", data) == struct.unpack("<3f", struct.pack("<3f", *values))


async def test_truncated_inputs_are_marked_when_truncating_is_asked_for(
    open_scripted: OpenScripted,
) -> None:
    answer = pb.EmbedTextResponse(
        model="mini", embeddings=[pb.Embedding(values=[1.0], truncated=True)]
    )
    upstream = embedded(EmbedText=answer)
    async with open_scripted(upstream) as client:
        body = {"model": "mini", "input": "long", "truncate": True}
        response = await client.post("/v1/embeddings", json=body)
    assert response.json()["data"][0]["truncated"] is True
    assert upstream.requests("EmbedText")[0].truncate is True


async def test_services_fields_are_named_as_the_client_wrote_them(
    open_scripted: OpenScripted,
) -> None:
    error = ContextTooLong("inputs[3]: expected at most 256 tokens, got 900", field="inputs[3]")
    async with open_scripted(embedded(EmbedText=error)) as client:
        response = await client.post("/v1/embeddings", json={"model": "mini", "input": "a"})
    fault = response.json()["error"]
    assert (response.status_code, fault["code"]) == (400, "context_length_exceeded")
    assert fault["param"] == "input[3]"
    assert fault["message"] == "input[3]: expected at most 256 tokens, got 900"


@pytest.mark.parametrize(
    ("url", "body", "param", "code"),
    [
        ("embeddings", {"model": "mini"}, "input", "missing_required_parameter"),
        ("embeddings", {"input": "a"}, "model", "missing_required_parameter"),
        ("embeddings", {"model": "mini", "input": []}, "input", "invalid_value"),
        ("embeddings", {"model": "mini", "input": ["a", 1]}, "input", "invalid_type"),
        ("embeddings", {"model": "mini", "input": [-1]}, "input", "invalid_type"),
        ("embeddings", {"model": "mini", "input": None}, "input", "invalid_type"),
        (
            "embeddings",
            {"model": "mini", "input": "a", "encoding_format": "int8"},
            "encoding_format",
            "invalid_value",
        ),
        (
            "embeddings",
            {"model": "mini", "input": "a", "dimensions": 0},
            "dimensions",
            "invalid_value",
        ),
        (
            "embeddings",
            {"model": "mini", "input": "a", "purpose": "other"},
            "purpose",
            "invalid_value",
        ),
        ("embeddings", {"model": "mini", "input": "a", "n": 2}, "n", "unknown_parameter"),
        ("embeddings", {"model": "other", "input": "a"}, "model", "model_not_found"),
        ("rerank", {"query": "q", "documents": []}, "documents", "invalid_value"),
        ("rerank", {"query": "q"}, "documents", "missing_required_parameter"),
        ("rerank", {"query": "", "documents": ["a"]}, "query", "invalid_value"),
        ("rerank", {"query": "q", "documents": [7]}, "documents[0]", "invalid_type"),
        (
            "rerank",
            {"query": "q", "documents": ["a", {"text": "b", "x": 1}]},
            "documents[1]",
            "unknown_parameter",
        ),
        ("rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n", "invalid_value"),
        (
            "rerank",
            {"query": "q", "documents": ["a"], "max_chunks_per_doc": 3},
            "max_chunks_per_doc",
            "unknown_parameter",
        ),
        ("rerank", {"query": "q", "documents": ["a"], "model": "x"}, "model", "model_not_found"),
        (
            "rerank",
            {"query": "q", "documents": ["a"], "model": "cross", "method": "bi_encoder"},
            "method",
            "invalid_value",
        ),
    ],
)
async def test_wrong_request_is_refused_by_name(
    open_scripted: OpenScripted, url: str, body: dict[str, Any], param: str, code: str
) -> None:
    upstream = embedded()
    async with open_scripted(upstream) as client:
        response = await client.post(f"/v1/{url}", json=body)
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert response.status_code == (404 if code == "model_not_found" else 400)
    assert not upstream.requests("EmbedText")
    assert not upstream.requests("Rerank")


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, pb.RERANK_METHOD_UNSPECIFIED),
        ({"model": "mini"}, pb.RERANK_METHOD_UNSPECIFIED),
        ({"model": "embedding", "method": "bi_encoder"}, pb.RERANK_METHOD_BI_ENCODER),
        ({"model": "cross"}, pb.RERANK_METHOD_CROSS_ENCODER),
    ],
)
async def test_rerank_has_coheres_shape(
    open_scripted: OpenScripted, given: dict[str, Any], method: int
) -> None:
    answer = pb.RerankResponse(
        request_id="r",
        model="cross",
        results=[pb.RerankResult(index=1, score=2.5), pb.RerankResult(index=0, score=-1.0)],
        method=pb.RERANK_METHOD_CROSS_ENCODER,
        usage=common_pb2.Usage(prompt_tokens=9),
    )
    upstream = embedded(Rerank=answer)
    body = {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 2, **given}
    async with open_scripted(upstream) as client:
        short = (await client.post("/v1/rerank", json=body)).json()
        long = (await client.post("/v1/rerank", json=body | {"return_documents": True})).json()
    assert short["results"] == [
        {"index": 1, "relevance_score": 2.5},
        {"index": 0, "relevance_score": -1.0},
    ]
    assert [result["document"]["text"] for result in long["results"]] == ["b", "a"]
    assert (short["model"], short["method"]) == ("cross", "cross_encoder")
    request = upstream.requests("Rerank")[0]
    assert list(request.passages) == ["a", "b"]
    assert (request.model, request.method, request.top_n) == ("mini", method, 2)


def test_embedding_models_are_among_the_models(http: httpx.Client) -> None:
    models = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    assert set(models) == {"toy", "hash"}
    assert models["hash"]["dimensions"] == 64
    assert "dimensions" not in models["toy"]
    assert http.get("/v1/models/embedding").json() == models["hash"]


async def test_gateway_without_embedding_says_so(open_scripted: OpenScripted) -> None:
    config = GatewayConfig(applications=("toy",))
    async with open_scripted(ScriptedUpstream({}), config) as client:
        for url, body in (
            ("embeddings", {"model": "mini", "input": "a"}),
            ("rerank", {"query": "q", "documents": ["a"]}),
        ):
            response = await client.post(f"/v1/{url}", json=body)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"


async def test_error_without_a_field_stays_as_it_is(open_scripted: OpenScripted) -> None:
    async with open_scripted(embedded(EmbedText=InvalidRequest("inputs are wrong"))) as client:
        response = await client.post("/v1/embeddings", json={"model": "mini", "input": "a"})
    assert response.json()["error"]["param"] is None
    assert response.json()["error"]["message"] == "inputs are wrong"


async def test_name_of_no_model_of_either_kind_is_404(open_scripted: OpenScripted) -> None:
    unknown = ModelNotFound("not mine", field="model")
    async with open_scripted(embedded(GetModel=unknown)) as client:
        assert (await client.get("/v1/models/alias")).status_code == 503  # one is silent
        config = GatewayConfig(applications=("toy",))
    async with open_scripted(embedded(GetModel=_toy), config) as client:
        assert (await client.get("/v1/models/mini")).status_code == 404
    async with open_scripted(embedded(GetModel=_toy)) as client:
        assert (await client.get("/v1/models/mini")).json()["id"] == "mini"
        assert (await client.get("/v1/models/nothing")).status_code == 404


def _toy(request: generation_pb2.GetModelRequest) -> generation_pb2.GetModelResponse:
    if request.model not in ("", "toy"):
        raise ModelNotFound("not mine", field="model")
    return generation_pb2.GetModelResponse(model="toy")
