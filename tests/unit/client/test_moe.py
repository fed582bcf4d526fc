"""`client.moe` of both clients, against a real router with two shards and a tiny random model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

import orrery
from orrery.v1 import moe_pb2 as pb
from orrery.v1 import moe_pb2_grpc
from tests.fakes.moe_cluster import (
    MODEL_NAME,
    RunningCluster,
    moe_cluster,
    moe_cluster_in_thread,
)
from tests.fakes.moe_model import NUM_EXPERTS, NUM_LAYERS, moe_folder
from tests.unit.client.both_clients import Either

TEXT = "It opened in 1873, and cost 4200 pounds."
SHARDS = ["shard-0", "shard-1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RunningCluster]:
    limits = {"max_text_bytes": 200}
    with moe_cluster_in_thread(
        folder, aliases=("other",), limits=limits, load_window_s=60
    ) as running:
        yield running


@pytest_asyncio.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, cluster: RunningCluster) -> AsyncIterator[Either]:
    made = Either(request.param, cluster.target)
    yield made
    await made.close()


# --- analyze and route ------------------------------------------------------------------------


async def test_analysis_tells_experts_of_each_token_and_layer(client: Either) -> None:
    found = await client.call("moe.analyze", TEXT, request_id="r-1")
    assert (found.request_id, found.model) == ("r-1", MODEL_NAME)
    assert (found.num_experts, found.num_experts_per_token) == (NUM_EXPERTS, 2)
    assert "".join(found.tokens) == TEXT
    assert len(found.token_ids) == len(TEXT)
    assert [layer.layer for layer in found.layers] == list(range(NUM_LAYERS))
    for layer in found.layers:
        routing = layer.routing
        assert len(routing.expert_ids) == len(routing.weights) == len(TEXT)
        for ids, weights in zip(routing.expert_ids, routing.weights, strict=True):
            assert len(set(ids)) == 2
            assert weights[0] >= weights[1] > 0
            assert sum(weights) == pytest.approx(1)
        assert routing.first_expert_ids == tuple(ids[0] for ids in routing.expert_ids)
        assert 0 < routing.mean_entropy <= math.log(NUM_EXPERTS)
    assert found.timing.total_ns > 0


async def test_shares_of_an_analysis_are_those_of_its_tokens(client: Either) -> None:
    found = await client.call("moe.analyze", TEXT)
    for layer in found.layers:
        counts = Counter(expert for ids in layer.routing.expert_ids for expert in ids)
        shares = [counts[expert] / (2 * len(TEXT)) for expert in range(NUM_EXPERTS)]
        assert layer.shares == pytest.approx(shares)
        assert layer.load_balancing_loss > 0
        assert layer.z_loss > 0
    digits = [each for each in found.token_classes if each.token_class == "number"]
    assert [each.layer for each in digits] == list(range(NUM_LAYERS))
    assert {each.num_tokens for each in digits} == {sum(c.isdigit() for c in TEXT)}
    assert all(sum(each.shares) == pytest.approx(1) for each in digits)


async def test_route_of_a_text_and_of_its_ids_is_the_analysis(client: Either) -> None:
    found = await client.call("moe.analyze", TEXT)
    by_text = await client.call("moe.route", TEXT)
    by_ids = await client.call("moe.route", iter(found.token_ids))
    assert by_text.token_ids == by_ids.token_ids == found.token_ids
    for analysed, one, other in zip(found.layers, by_text.layers, by_ids.layers, strict=True):
        assert one == other == analysed.routing


@pytest.mark.parametrize(
    ("method", "value", "field"),
    [
        ("analyze", "", "text"),
        ("analyze", "x" * 201, "text"),
        ("analyze", "é" * 101, "text"),
        ("analyze", "\ud800", "text"),
        ("route", "", "text"),
        ("route", [], "token_ids"),
        ("route", [10**6], "token_ids"),
        ("route", [-1], "prompt"),
    ],
)
async def test_texts_that_cannot_be_routed_are_refused_by_name(
    client: Either, method: str, value: Any, field: str
) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call(f"moe.{method}", value)
    assert caught.value.field == field


async def test_a_text_longer_than_the_context_is_refused(client: Either) -> None:
    limit = (await client.call("moe.model")).max_text_bytes
    with pytest.raises(orrery.InvalidRequestError, match="tokens"):
        await client.call("moe.route", [5] * 100_000)
    with pytest.raises(orrery.InvalidRequestError, match=str(limit)):
        await client.call("moe.analyze", "x" * (limit + 1))


@pytest.mark.parametrize(
    ("method", "arguments", "options"),
    [
        ("analyze", [3], {}),
        ("analyze", [None], {}),
        ("route", [3], {}),
        ("route", [b"bytes"], {}),
        ("route", [["a"]], {}),
        ("expert_load", ["long"], {}),
        ("expert_load", [1.5], {}),
        ("rebalance", [], {"max_shard_bytes": "much"}),
        ("rebalance", [], {"dry_run": "yes"}),
        ("placement", [], {"model": 3}),
    ],
)
async def test_wrong_types_are_type_errors(
    client: Either, method: str, arguments: list[Any], options: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        await client.call(f"moe.{method}", *arguments, **options)


# --- load, placement, moving ------------------------------------------------------------------


async def test_expert_load_counts_what_was_routed(client: Either) -> None:
    before = await client.call("moe.expert_load")
    await client.call("moe.analyze", TEXT)
    after = await client.call("moe.expert_load", 60)
    analysed = await client.call("moe.route", TEXT)
    assert [layer.layer for layer in after.layers] == list(range(NUM_LAYERS))
    for old, new, routing in zip(before.layers, after.layers, analysed.layers, strict=True):
        went = Counter(expert for ids in routing.expert_ids for expert in ids)
        came = [n - o for n, o in zip(new.num_tokens, old.num_tokens, strict=True)]
        assert came == [went[expert] for expert in range(NUM_EXPERTS)]
        mean = sum(new.num_tokens) / NUM_EXPERTS
        assert new.max_over_mean == pytest.approx(max(new.num_tokens) / mean)
        assert 0 < new.mean_entropy <= math.log(NUM_EXPERTS)
        assert new.num_dropped == 0
    rows = sum(shard.num_rows for shard in after.shards)
    assert rows == sum(sum(layer.num_tokens) for layer in after.layers)
    assert 0 < after.window_s <= 60


@pytest.mark.parametrize("window_s", [0, 61, 2**32 - 1])
async def test_a_window_that_is_not_kept_is_refused(client: Either, window_s: int) -> None:
    with pytest.raises(orrery.InvalidRequestError, match="1 to 60 seconds") as caught:
        await client.call("moe.expert_load", window_s)
    assert caught.value.field == "window_s"


@pytest.mark.parametrize("window_s", [-1, 2**32])
async def test_a_window_that_no_request_can_hold_is_refused_unsent(
    client: Either, window_s: int
) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("moe.expert_load", window_s)
    assert caught.value.field == "window_s"


async def test_placement_gives_every_expert_a_home(client: Either) -> None:
    placement = await client.call("moe.placement")
    assert {(each.layer, each.expert) for each in placement.experts} == {
        (layer, expert) for layer in range(NUM_LAYERS) for expert in range(NUM_EXPERTS)
    }
    assert [shard.shard for shard in placement.shards] == SHARDS
    for shard in placement.shards:
        held = [each for each in placement.experts if shard.shard in each.shards]
        assert shard.reachable
        assert shard.num_experts == len(held)
        assert 0 < shard.expert_bytes <= shard.max_expert_bytes
    assert placement.version >= 1


async def test_rebalance_tells_then_moves_what_it_told(folder: Path) -> None:
    """Of the random model's experts some are hot, so there is something to gain."""
    async with moe_cluster(folder) as cluster, orrery.AsyncClient(cluster.target) as client:
        await client.moe.analyze(TEXT)
        before = await client.moe.placement()
        told = await client.moe.rebalance(dry_run=True)
        assert not told.applied
        assert (await client.moe.placement()).experts == before.experts
        done = await client.moe.rebalance()
        assert done.applied
        assert done.moves == told.moves
        assert told.after == done.after
        assert done.after.max_over_mean < done.before.max_over_mean
        after = await client.moe.placement()
        again = await client.moe.rebalance()
    assert after.version == done.version > before.version
    homes = {(each.layer, each.expert): set(each.shards) for each in before.experts}
    for move in done.moves:
        home = homes[move.layer, move.expert]
        (home.add if move.added else home.remove)(move.shard)
    assert homes == {(each.layer, each.expert): set(each.shards) for each in after.experts}
    assert (again.applied, again.moves) == (False, ())


async def test_a_budget_that_does_not_hold_the_experts_is_refused(client: Either) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await client.call("moe.rebalance", max_shard_bytes=1)
    assert caught.value.field == "max_shard_bytes"


@pytest.mark.parametrize(("dry_run", "is_repeated"), [(True, True), (False, False)])
async def test_a_rebalance_that_may_have_been_applied_is_not_repeated(
    dry_run: bool, is_repeated: bool
) -> None:
    calls: list[str | None] = []

    class Router(moe_pb2_grpc.MoeRouterServiceServicer):
        async def Rebalance(self, request: Any, context: Any) -> pb.RebalanceResponse:
            calls.append(dict(context.invocation_metadata()).get("application"))
            if len(calls) == 1:  # as a replica that is lost
                await context.abort(grpc.StatusCode.CANCELLED)
            return pb.RebalanceResponse(version=2)

    async with served(Router()) as target, orrery.AsyncClient(target) as client:
        with nullcontext() if is_repeated else pytest.raises(orrery.ConnectionLostError):
            await client.moe.rebalance(dry_run=dry_run, timeout_s=20)
    assert calls == ["moe-router"] * (1 + is_repeated)


# --- what it is, and who serves it ------------------------------------------------------------


async def test_model_tells_sizes_and_limits(client: Either, cluster: RunningCluster) -> None:
    model = await client.call("moe.model")
    assert (model.model, model.aliases) == (MODEL_NAME, ("other",))
    assert (model.num_experts, model.num_experts_per_token) == (NUM_EXPERTS, 2)
    assert model.layers == tuple(range(NUM_LAYERS))
    assert model.dtype in ("float32", "bfloat16")
    assert model.hidden_size == cluster.service.model.hidden_size
    assert model.bytes_per_expert == cluster.service.model.bytes_per_expert
    assert model.max_text_bytes == 200
    assert (model.capacity_factor, model.capacity_policy) == (None, None)


async def test_load_counts_tokens(client: Either) -> None:
    before = await client.call("moe.load")
    await client.call("moe.route", TEXT)
    after = await client.call("moe.load")
    assert after.num_tokens_done - before.num_tokens_done == NUM_LAYERS * len(TEXT)
    assert (after.num_waiting_tokens, after.num_dispatching) == (0, 0)
    assert after.resident_bytes > 0


async def test_another_model_is_not_found(client: Either) -> None:
    for method, arguments in (
        ("analyze", [TEXT]),
        ("route", [TEXT]),
        ("expert_load", []),
        ("placement", []),
        ("rebalance", []),
    ):
        with pytest.raises(orrery.ModelNotFoundError, match="nobody") as caught:
            await client.call(f"moe.{method}", *arguments, model="nobody")
        assert caught.value.field == "model"
    found = await client.call("moe.analyze", TEXT, model="other")
    assert found.model == MODEL_NAME


async def test_the_application_can_be_chosen() -> None:
    seen: list[str | None] = []

    class Router(moe_pb2_grpc.MoeRouterServiceServicer):
        async def GetPlacement(self, request: Any, context: Any) -> pb.GetPlacementResponse:
            seen.append(dict(context.invocation_metadata()).get("application"))
            return pb.GetPlacementResponse()

    async with served(Router()) as target:
        for name in ("experts-us", ""):
            names = orrery.ServiceNames(moe=name)
            async with orrery.AsyncClient(target, services=names) as client:
                await client.moe.placement()
                await client.moe.placement(application="experts-eu")
    assert seen == ["experts-us", "experts-eu", None, "experts-eu"]


async def test_capacity_of_a_model_that_drops_tokens_is_told() -> None:
    class Router(moe_pb2_grpc.MoeRouterServiceServicer):
        async def GetMoeModel(self, request: Any, context: Any) -> pb.GetMoeModelResponse:
            return pb.GetMoeModelResponse(
                capacity_factor=1.25, capacity_policy=pb.CAPACITY_POLICY_REROUTE
            )

    async with served(Router()) as target, orrery.AsyncClient(target) as client:
        model = await client.moe.model()
    assert (model.capacity_factor, model.capacity_policy) == (1.25, "reroute")


async def test_a_server_without_a_router_is_said_to_have_none() -> None:
    async with served(None) as target, orrery.AsyncClient(target) as client:
        with pytest.raises(orrery.ServiceNotFoundError, match="moe-router"):
            await client.moe.analyze(TEXT)


@asynccontextmanager
async def served(router: moe_pb2_grpc.MoeRouterServiceServicer | None) -> AsyncIterator[str]:
    """A server with a scripted router, or with none; yields its target."""
    server = grpc.aio.server()
    if router is not None:
        moe_pb2_grpc.add_MoeRouterServiceServicer_to_server(router, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)
