"""The router's RPCs, as the contract says: in this process and against the running platform."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import torch

from orrery.v1 import common_pb2
from orrery.v1 import moe_pb2 as pb
from services.moe.tensors import to_message
from tests.contract.moe_served import ServedMoe, local_layer, served_moe
from tests.contract.served import refusal
from tests.fakes.moe_cluster import RunningCluster, moe_cluster_in_thread
from tests.fakes.moe_model import moe_folder

TARGET_VARIABLE = "CONTRACT_TEST_TARGET"
LIMITS = {"max_tokens": 64, "max_text_bytes": 200}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RunningCluster]:
    with moe_cluster_in_thread(folder, num_shards=2, limits=LIMITS) as running:
        yield running


@pytest.fixture(params=["in-process", pytest.param("platform", marks=pytest.mark.integration)])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[ServedMoe]:
    """The router under test. After each test nothing may be left running in it."""
    routed = request.param == "platform"
    if not routed:
        target = request.getfixturevalue("cluster").target
    elif TARGET_VARIABLE in os.environ:
        target = os.environ[TARGET_VARIABLE]
    else:
        target = request.getfixturevalue("platform").grpc_target
    # The platform's decoder keeps a stream to the router.
    async with served_moe(target, routed=routed, num_streams=int(routed)) as application:
        yield application
        await application.check_idle()


@pytest.mark.parametrize("num_tokens", [1, 2, 33])
async def test_dispatch_equals_the_local_layer_to_the_bit(
    cluster: RunningCluster, folder: Path, num_tokens: int
) -> None:
    async with served_moe(cluster.target, routed=False) as served:
        for layer in served.model.layers:
            hidden = served.hidden(num_tokens, seed=layer)
            request = pb.DispatchRequest(
                input=pb.LayerInput(layer=layer, hidden=to_message(hidden))
            )
            answer = await served.call("Dispatch", request)
            assert torch.equal(served.rows(answer.hidden), local_layer(folder, layer, hidden))
            assert answer.placement_version >= 1
            assert answer.num_dropped == 0


async def test_dispatch_answers_in_the_shape_and_type_of_its_input(served: ServedMoe) -> None:
    request = pb.DispatchRequest(model=served.model.model, input=served.layer_input(5))
    answer = await served.call("Dispatch", request)
    assert answer.model == served.model.model
    assert list(answer.hidden.shape) == [5, served.model.hidden_size]
    assert answer.hidden.dtype == served.model.dtype
    assert answer.request_id
    assert answer.timing.total_ns > 0


async def test_concurrent_calls_get_each_their_own(served: ServedMoe) -> None:
    """Whatever batches they share, the answer is that of the call alone."""
    layers = list(served.model.layers)
    requests = [
        pb.DispatchRequest(
            input=pb.LayerInput(
                layer=layers[n % len(layers)], hidden=to_message(served.hidden(1 + n % 5, seed=n))
            )
        )
        for n in range(24)
    ]
    together = await asyncio.gather(*(served.call("Dispatch", r) for r in requests))
    for request, answer in zip(requests, together, strict=True):
        alone = await served.call("Dispatch", request)
        assert alone.hidden == answer.hidden


async def test_stream_answers_each_message_in_order(served: ServedMoe) -> None:
    layers = list(served.model.layers) * 3
    sent = [
        pb.DispatchStreamRequest(
            model=served.model.model if n == 0 else "",
            sequence=100 + n,
            input=pb.LayerInput(layer=layer, hidden=to_message(served.hidden(2, seed=n))),
            timeout_ms=20_000,
        )
        for n, layer in enumerate(layers)
    ]
    call = served.stub.DispatchStream(iter(sent), metadata=served.metadata, timeout=60)
    answers = [answer async for answer in call]
    assert [answer.sequence for answer in answers] == [message.sequence for message in sent]
    for message, answer in zip(sent, answers, strict=True):
        unary = await served.call("Dispatch", pb.DispatchRequest(input=message.input))
        assert unary.hidden == answer.hidden


async def test_a_refused_message_ends_the_stream_after_the_answers_before(
    served: ServedMoe,
) -> None:
    good = pb.DispatchStreamRequest(sequence=1, input=served.layer_input())
    bad = pb.DispatchStreamRequest(sequence=2, input=served.layer_input(layer=10_000))
    call = served.stub.DispatchStream(iter([good, bad, good]), metadata=served.metadata, timeout=60)
    assert (await call.read()).sequence == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert refusal(caught.value).field == "input.layer"


async def test_leaving_a_stream_frees_what_it_held(served: ServedMoe) -> None:
    async def messages() -> AsyncIterator[pb.DispatchStreamRequest]:
        yield pb.DispatchStreamRequest(sequence=1, input=served.layer_input())
        await asyncio.sleep(1000)

    call = served.stub.DispatchStream(messages(), metadata=served.metadata)
    assert (await call.read()).sequence == 1
    call.cancel()
    await served.check_idle()


async def test_route_tells_experts_weights_and_entropies(served: ServedMoe) -> None:
    answer = await served.call("Route", pb.RouteRequest(hidden=served.layer_input(6)))
    (layer,) = answer.layers
    k = answer.num_experts_per_token
    assert k == served.model.num_experts_per_token
    assert layer.layer == served.model.layers[0]
    assert (len(layer.expert_ids), len(layer.weights), len(layer.entropies)) == (6 * k, 6 * k, 6)
    for token in range(6):
        ids = layer.expert_ids[token * k : (token + 1) * k]
        weights = layer.weights[token * k : (token + 1) * k]
        assert len(set(ids)) == k
        assert max(ids) < served.model.num_experts
        assert list(weights) == sorted(weights, reverse=True)
    most = float(torch.tensor(float(served.model.num_experts)).log())
    assert all(0 <= entropy <= most + 1e-4 for entropy in layer.entropies)


async def test_route_of_hidden_states_computes_no_expert(served: ServedMoe) -> None:
    before = await served.call("GetExpertLoad", pb.GetExpertLoadRequest())
    await served.call("Route", pb.RouteRequest(hidden=served.layer_input(6)))
    after = await served.call("GetExpertLoad", pb.GetExpertLoadRequest())
    assert [list(layer.num_tokens) for layer in after.layers] == [
        list(layer.num_tokens) for layer in before.layers
    ]


async def test_route_of_a_text_tells_all_layers(served: ServedMoe) -> None:
    by_text = await served.call("Route", pb.RouteRequest(text="The observatory opens"))
    assert [layer.layer for layer in by_text.layers] == list(served.model.layers)
    num_tokens, k = len(by_text.token_ids), by_text.num_experts_per_token
    assert num_tokens > 0
    assert all(len(layer.expert_ids) == num_tokens * k for layer in by_text.layers)
    by_ids = await served.call(
        "Route", pb.RouteRequest(token_ids=common_pb2.TokenIds(ids=by_text.token_ids))
    )
    assert list(by_ids.token_ids) == list(by_text.token_ids)
    for one, other in zip(by_text.layers, by_ids.layers, strict=True):
        assert list(one.expert_ids) == list(other.expert_ids)


async def test_analyze_says_what_the_routing_of_a_text_is_worth(served: ServedMoe) -> None:
    text = "It opened in 1873, and cost 4200 pounds."
    answer = await served.call("Analyze", pb.AnalyzeRequest(text=text))
    num_tokens, experts = len(answer.token_ids), answer.num_experts
    assert len(answer.tokens) == num_tokens
    assert "".join(answer.tokens).strip() == text
    assert [layer.routing.layer for layer in answer.layers] == list(served.model.layers)
    for layer in answer.layers:
        assert sum(layer.shares) == pytest.approx(1.0, abs=1e-4)
        assert len(layer.shares) == experts
        assert layer.load_balancing_loss > 0
        assert layer.z_loss >= 0
    classes = {found.token_class for found in answer.token_classes}
    assert {"number", "punctuation"} <= classes
    first = [c for c in answer.token_classes if c.layer == served.model.layers[0]]
    assert sum(found.num_tokens for found in first) == num_tokens


async def test_placement_gives_every_expert_a_home(served: ServedMoe) -> None:
    answer = await served.call("GetPlacement", pb.GetPlacementRequest())
    named = {(e.layer, e.expert) for e in answer.experts}
    assert named == {
        (layer, e) for layer in served.model.layers for e in range(served.model.num_experts)
    }
    known = {status.shard for status in answer.shards}
    assert all(e.shards and set(e.shards) <= known for e in answer.experts)
    assert all(status.reachable for status in answer.shards)
    for status in answer.shards:
        held = sum(status.shard in e.shards for e in answer.experts)
        assert status.num_experts == held
        assert status.expert_bytes <= status.max_expert_bytes


async def test_load_counts_every_token_once_for_each_of_its_experts(served: ServedMoe) -> None:
    layer = served.model.layers[-1]
    before = await served.call("GetExpertLoad", pb.GetExpertLoadRequest())
    for seed in range(4):
        hidden = to_message(served.hidden(7, seed=seed))
        request = pb.DispatchRequest(input=pb.LayerInput(layer=layer, hidden=hidden))
        await served.call("Dispatch", request)
    after = await served.call("GetExpertLoad", pb.GetExpertLoadRequest())
    k = served.model.num_experts_per_token

    def tokens(answer: pb.GetExpertLoadResponse) -> int:
        return sum(sum(found.num_tokens) for found in answer.layers if found.layer == layer)

    assert tokens(after) - tokens(before) == 28 * k
    rows = [sum(status.num_rows for status in answer.shards) for answer in (before, after)]
    assert rows[1] - rows[0] == 28 * k
    (found,) = [found for found in after.layers if found.layer == layer]
    assert found.max_over_mean >= 1
    assert found.mean_entropy > 0


async def test_a_dry_run_tells_and_changes_nothing(served: ServedMoe) -> None:
    before = await served.call("GetPlacement", pb.GetPlacementRequest())
    answer = await served.call("Rebalance", pb.RebalanceRequest(dry_run=True))
    assert not answer.applied
    assert answer.version == before.version
    assert answer.after.max_over_mean <= answer.before.max_over_mean
    after = await served.call("GetPlacement", pb.GetPlacementRequest())
    assert after.experts == before.experts


async def test_model_tells_sizes_and_limits(served: ServedMoe) -> None:
    model = served.model
    assert model.hidden_size > 0
    assert list(model.layers) == sorted(set(model.layers))
    assert 1 <= model.num_experts_per_token <= model.num_experts
    assert model.bytes_per_expert > 0
    assert len(model.weight_hash) == 64
    assert model.max_tokens >= 1
    assert model.capacity_policy == pb.CAPACITY_POLICY_UNSPECIFIED


# --- bad input -------------------------------------------------------------------------------


def dispatch(served: ServedMoe, **changes: object) -> pb.DispatchRequest:
    entering = served.layer_input()
    for path, value in changes.items():
        match path:
            case "layer":
                entering.layer = value
            case "shape":
                entering.hidden.ClearField("shape")
                entering.hidden.shape.extend(value)
            case _:
                setattr(entering.hidden, path, value)
    return pb.DispatchRequest(input=entering)


def filled(served: ServedMoe, value: float) -> bytes:
    hidden = served.hidden(3)
    hidden[2, 1] = value
    return bytes(to_message(hidden).data)


BAD_DISPATCHES = {
    "hidden_size": (lambda s: dispatch(s, shape=[3, s.model.hidden_size + 1]), "shape"),
    "dimensions": (lambda s: dispatch(s, shape=[3 * s.model.hidden_size]), "shape"),
    "no_shape": (lambda s: dispatch(s, shape=[]), "shape"),
    "empty_batch": (
        lambda s: dispatch(s, shape=[0, s.model.hidden_size], data=b""),
        "shape",
    ),
    "too_many_tokens": (
        lambda s: dispatch(s, shape=[s.model.max_tokens + 1, s.model.hidden_size]),
        "shape",
    ),
    "huge_shape": (lambda s: dispatch(s, shape=[2**32 - 1, 2**32 - 1]), "shape"),
    "dtype": (lambda s: dispatch(s, dtype=3 - s.model.dtype), "dtype"),
    "no_dtype": (lambda s: dispatch(s, dtype=0), "dtype"),
    "too_few_bytes": (lambda s: dispatch(s, data=b"\0" * 7), "data"),
    "no_bytes": (lambda s: dispatch(s, data=b""), "data"),
    "nan": (lambda s: dispatch(s, data=filled(s, float("nan"))), "data"),
    "infinity": (lambda s: dispatch(s, data=filled(s, float("-inf"))), "data"),
}


@pytest.mark.parametrize("name", BAD_DISPATCHES)
async def test_bad_hidden_states_are_refused_by_field(served: ServedMoe, name: str) -> None:
    make, field = BAD_DISPATCHES[name]
    request = make(served)
    await refused(served, "Dispatch", request, f"input.hidden.{field}")
    route = pb.RouteRequest(hidden=request.input)
    await refused(served, "Route", route, f"hidden.hidden.{field}")


async def refused(served: ServedMoe, name: str, request: object, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.call(name, request)
    said = refusal(caught.value)
    assert said.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (said.reason, said.field) == ("INVALID_REQUEST", field)
    assert said.request_id


async def test_a_layer_that_is_not_sparse_is_refused(served: ServedMoe) -> None:
    beyond = max(served.model.layers) + 1
    await refused(served, "Dispatch", dispatch(served, layer=beyond), "input.layer")
    await refused(served, "Route", pb.RouteRequest(hidden=served.layer_input(layer=beyond)),
                  "hidden.layer")  # fmt: skip


async def test_other_bad_input_is_refused_by_field(served: ServedMoe) -> None:
    vocabulary_end = 2**31
    for name, request, field in [
        ("Dispatch", pb.DispatchRequest(), "input"),
        ("Dispatch", pb.DispatchRequest(input=pb.LayerInput(layer=10**9)), "input"),
        ("Route", pb.RouteRequest(hidden=pb.LayerInput()), "hidden"),
        ("Route", pb.RouteRequest(), "input"),
        ("Route", pb.RouteRequest(text=""), "text"),
        ("Route", pb.RouteRequest(text="a" * (served.model.max_text_bytes + 1)), "text"),
        ("Route", pb.RouteRequest(token_ids=common_pb2.TokenIds()), "token_ids"),
        (
            "Route",
            pb.RouteRequest(token_ids=common_pb2.TokenIds(ids=[1, vocabulary_end])),
            "token_ids",
        ),
        ("Analyze", pb.AnalyzeRequest(), "text"),
        ("GetExpertLoad", pb.GetExpertLoadRequest(window_s=0), "window_s"),
        ("GetExpertLoad", pb.GetExpertLoadRequest(window_s=10**9), "window_s"),
        ("Rebalance", pb.RebalanceRequest(max_shard_bytes=1), "max_shard_bytes"),
    ]:
        await refused(served, name, request, field)


async def test_a_layer_of_zero_is_a_layer(served: ServedMoe) -> None:
    if 0 in served.model.layers:
        entering = pb.LayerInput(hidden=served.layer_input().hidden)
        answer = await served.call("Dispatch", pb.DispatchRequest(input=entering))
        assert list(answer.hidden.shape) == [3, served.model.hidden_size]


@pytest.mark.parametrize(
    "request_type",
    [
        pb.RouteRequest, pb.DispatchRequest, pb.GetPlacementRequest, pb.GetExpertLoadRequest,
        pb.RebalanceRequest, pb.AnalyzeRequest, pb.GetMoeModelRequest,
    ],
)  # fmt: skip
async def test_another_model_is_not_found(served: ServedMoe, request_type: type) -> None:
    name = request_type.__name__.removesuffix("Request")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.call(name, request_type(model="gpt-5"))
    said = refusal(caught.value)
    assert (said.code, said.field) == (grpc.StatusCode.NOT_FOUND, "model")


async def test_many_bad_calls_hurt_nobody(served: ServedMoe) -> None:
    bad = [make(served) for make, _ in BAD_DISPATCHES.values()]
    good = pb.DispatchRequest(input=served.layer_input())
    expected = await served.call("Dispatch", good)
    calls = [served.call("Dispatch", request) for request in [*bad, good] * 4]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % (len(bad) + 1) == len(bad):
            assert answer.hidden == expected.hidden
        else:
            assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT
