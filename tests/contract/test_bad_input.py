"""Bad input gets its exact status, reason and field, and costs nothing."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from tests.contract.served import Served, greedy, refusal, text, tokens

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NAN = float("nan")


def _sampling(**settings: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=text("a lamp"), sampling=pb.SamplingParams(**settings))


def _prompt(prompt: common_pb2.Prompt) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=prompt)


CASES = {
    "no prompt": (pb.GenerateRequest(), "prompt"),
    "empty text": (_prompt(text("")), "prompt"),
    "no token ids": (_prompt(tokens([])), "prompt"),
    "no messages": (_prompt(common_pb2.Prompt(chat=common_pb2.ChatMessages())), "prompt"),
    "token id out of range": (_prompt(tokens([1, 4_000_000_000])), "prompt"),
    "text over the byte limit": (_prompt(text("x" * 1_100_000)), "prompt"),
    "negative temperature": (_sampling(temperature=-1.0), "temperature"),
    "NaN temperature": (_sampling(temperature=NAN), "temperature"),
    "infinite temperature": (_sampling(temperature=float("inf")), "temperature"),
    "n of 1000": (_sampling(n=1000), "n"),
    "n of 0": (_sampling(n=0), "n"),
    "best_of below n": (_sampling(n=3, best_of=2), "best_of"),
    "100 stop strings": (_sampling(stop=[f"s{number}" for number in range(100)]), "stop"),
    "empty stop string": (_sampling(stop=[""]), "stop"),
    "stop string of 10,000": (_sampling(stop=["x" * 10_000]), "stop"),
    "top_p of 0": (_sampling(top_p=0.0), "top_p"),
    "NaN top_p": (_sampling(top_p=NAN), "top_p"),
    "NaN penalty": (_sampling(presence_penalty=NAN), "presence_penalty"),
    "max_tokens of 0": (_sampling(max_tokens=0), "max_tokens"),
    "min above max": (_sampling(max_tokens=2, min_tokens=3), "min_tokens"),
    "1000 logprobs": (_sampling(logprobs=1000), "logprobs"),
    "bias out of range": (_sampling(logit_bias={1: 1000.0}), "logit_bias[1]"),
    "biased token out of range": (_sampling(logit_bias={4_000_000_000: 1.0}), "logit_bias"),
    "stop token out of range": (_sampling(stop_token_ids=[4_000_000_000]), "stop_token_ids"),
    "banned token out of range": (_sampling(banned_token_ids=[4_000_000_000]), "banned_token_ids"),
    "beams with top_k": (_sampling(beam_width=4, top_k=3), "top_k"),
    "beams of 1000": (_sampling(beam_width=1000), "beam_width"),
}


@pytest.mark.parametrize("name", CASES)
async def test_bad_request_is_refused_by_field(served: Served, name: str) -> None:
    request, field = CASES[name]
    before = (await served.load()).num_finished
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.generate(request)
    refused = refusal(caught.value)
    assert (refused.code, refused.reason, refused.field) == (INVALID, "INVALID_REQUEST", field)
    assert refused.request_id
    assert (await served.load()).num_finished == before, "it reached the engine"


@pytest.mark.parametrize("rpc", ["Generate", "GenerateBatch", "Score", "Tokenize"])
async def test_the_same_bad_sampling_and_prompts_everywhere(served: Served, rpc: str) -> None:
    requests = {
        "Generate": pb.GenerateRequest(),
        "GenerateBatch": pb.GenerateBatchRequest(),
        "Score": pb.ScoreRequest(),
        "Tokenize": pb.TokenizeRequest(),
    }
    fields = {"Generate": "prompt", "GenerateBatch": "prompts", "Score": "target"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(served, rpc, requests[rpc])
    refused = refusal(caught.value)
    assert (refused.code, refused.field) == (INVALID, fields.get(rpc, "prompt"))


@pytest.mark.parametrize(
    "rpc",
    ["Generate", "GenerateBatch", "Score", "Tokenize", "Detokenize", "GetModel", "GetLoad"],
)
async def test_unknown_model_is_not_found_in_every_rpc(served: Served, rpc: str) -> None:
    request = getattr(pb, f"{rpc}Request")(model="nobody/knows-it")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(served, rpc, request)
    refused = refusal(caught.value)
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert (refused.reason, refused.field) == ("MODEL_NOT_FOUND", "model")


async def _call(served: Served, rpc: str, request: Any) -> Any:
    if rpc == "Generate":
        return await served.generate(request)
    return await getattr(served.stub, rpc)(request, metadata=served.metadata)


async def test_prompt_over_the_context_is_context_too_long(served: Served) -> None:
    info = await served.info()
    for request, field in (
        (_prompt(tokens([1] * (info.max_model_len + 1))), "prompt"),
        (_prompt(text("lamp " * 3 * info.max_model_len)), "prompt"),
        (
            pb.GenerateRequest(prompt=text("a"), sampling=greedy(max_tokens=info.max_model_len)),
            "max_tokens",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.generate(request)
        refused = refusal(caught.value)
        assert (refused.code, refused.reason) == (INVALID, "CONTEXT_TOO_LONG")
        assert refused.field == field


async def test_prompt_that_just_fits_is_served(served: Served) -> None:
    info = await served.info()
    request = pb.GenerateRequest(
        prompt=tokens([1] * (info.max_model_len - 1)), sampling=greedy(max_tokens=1)
    )
    messages = await served.generate(request)
    assert messages[-1].usage.completion_tokens == 1


async def test_batch_of_too_many_prompts_is_refused(served: Served) -> None:
    limit = (await served.info()).limits.max_batch_prompts
    request = pb.GenerateBatchRequest(prompts=[text("a")] * (limit + 1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.GenerateBatch(request, metadata=served.metadata)
    assert refusal(caught.value).field == "prompts"


async def test_token_ids_out_of_range_are_not_decoded(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Detokenize(
            pb.DetokenizeRequest(token_ids=[4_000_000_000]), metadata=served.metadata
        )
    assert refusal(caught.value).field == "token_ids"


async def test_message_over_the_transport_limit_is_resource_exhausted(served: Served) -> None:
    request = pb.TokenizeRequest(prompt=text("x" * (20 << 20)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Tokenize(request, metadata=served.metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await served.info()).model == served.model  # and the server goes on


@pytest.mark.parametrize("data", [b"\x12\x04\n\x02\xff\xfe", b"\xff\xff\xff", b"\x0a\x7f"])
async def test_bytes_that_are_no_message_or_no_utf8_are_refused(
    served: Served, data: bytes
) -> None:
    call = served.channel.unary_unary("/orrery.v1.GenerationService/Tokenize")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(data, metadata=served.metadata)
    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (INVALID, "INVALID_REQUEST")


async def test_malformed_request_id_is_refused(served: Served) -> None:
    metadata = (*served.metadata, ("x-request-id", "has space"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.GetLoad(pb.GetLoadRequest(), metadata=metadata)
    assert refusal(caught.value).field == "x-request-id"


async def test_call_without_application_is_not_found(served: Served) -> None:
    if not served.metadata:
        pytest.skip("a plain server has one application and needs no name for it")
    for metadata in ((), (("application", "nobody"),)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.GetLoad(pb.GetLoadRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
