"""Where the load of the experts goes: capacity; a rebalance, as the shards themselves count it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orrery.v1 import moe_pb2 as pb
from services.moe.expert_key import ExpertKey
from services.moe.router.placement import Homes
from services.moe.tensors import to_message
from tests.contract.moe_served import ServedMoe, local_layer, served_moe
from tests.fakes.moe_cluster import RunningCluster, moe_cluster
from tests.fakes.moe_model import NUM_EXPERTS, moe_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moe_folder(tmp_path_factory.mktemp("moe") / "model")


@pytest.mark.parametrize("policy", ["drop", "reroute"])
async def test_a_capacity_factor_drops_or_reroutes_and_counts(folder: Path, policy: str) -> None:
    capacity = {"factor": 0.5, "policy": policy}
    async with (
        moe_cluster(folder, capacity=capacity) as cluster,
        served_moe(cluster.target, routed=False) as served,
    ):
        assert served.model.capacity_factor == 0.5
        assert pb.CapacityPolicy.Name(served.model.capacity_policy).endswith(policy.upper())
        layer, hidden = served.model.layers[1], served.hidden(40)
        request = pb.DispatchRequest(input=pb.LayerInput(layer=layer, hidden=to_message(hidden)))
        answer = await served.call("Dispatch", request)
        output, whole = served.rows(answer.hidden), local_layer(folder, layer, hidden)
        assert bool(output.isfinite().all())
        assert not torch.equal(output, whole)
        # Room for half of all slots: of 40 tokens and 2 experts each, 8 times 5.
        assert answer.num_dropped == 40 if policy == "reroute" else answer.num_dropped >= 40
        load = await served.call("GetExpertLoad", pb.GetExpertLoadRequest())
        (found,) = [found for found in load.layers if found.layer == layer]
        assert found.num_dropped == answer.num_dropped
        assert sum(found.num_tokens) == 80
        rows = sum(status.num_rows for status in load.shards)
        assert rows == 80 - answer.num_dropped


async def zipf_tokens(served: ServedMoe, layer: int, count: int) -> Tensor:
    """Hidden states [count, hidden_size] that the layer's gate sends to experts 0 and e, with e
    drawn by Zipf's law: over all slots, expert number n is about n to the power -1.5 as hot.
    """
    rows = served.hidden(1000, seed=layer)
    entering = pb.LayerInput(layer=layer, hidden=to_message(rows))
    (routing,) = (await served.call("Route", pb.RouteRequest(hidden=entering))).layers
    pairs = torch.tensor(routing.expert_ids).view(-1, 2).sort(dim=1).values.tolist()
    kinds = torch.stack([rows[pairs.index([0, e])] for e in range(1, NUM_EXPERTS)])
    shares = 1.0 / np.arange(2, NUM_EXPERTS + 1) ** 1.5
    drawn = np.random.default_rng(0).choice(len(kinds), count, p=shares / shares.sum())
    return kinds[torch.from_numpy(drawn)]


def hot_on_one(cluster: RunningCluster) -> Homes:
    """The three hottest experts of every layer on the first shard, the others on the rest."""
    names = list(cluster.shards)

    def home(key: ExpertKey) -> str:
        return names[0] if key.expert < 3 else names[1 + key.expert % (len(names) - 1)]

    return {key: (home(key),) for key in cluster.service.placement.homes}


async def test_a_rebalance_of_zipf_load_within_its_budget_is_seen_on_the_shards(
    folder: Path,
) -> None:
    """Room for half as many experts again as an even share, and the place that moves need."""
    num_shards, most = 4, 10
    async with (
        moe_cluster(folder, num_shards=num_shards, max_experts=most) as cluster,
        served_moe(cluster.target, routed=False) as served,
    ):
        shards = [shard.service for shard in cluster.shards.values()]
        inputs = [
            pb.LayerInput(layer=layer, hidden=to_message(await zipf_tokens(served, layer, 256)))
            for layer in served.model.layers
        ]
        await cluster.service.rebalancer.move_to(hot_on_one(cluster))

        async def traffic() -> list[int]:
            """Rows that each shard has computed, by its own count."""
            before = [shard.num_rows_done for shard in shards]
            for entering in inputs * 2:
                await served.call("Dispatch", pb.DispatchRequest(input=entering))
            return [shard.num_rows_done - n for shard, n in zip(shards, before, strict=True)]

        before = await traffic()
        answer = await served.call("Rebalance", pb.RebalanceRequest())
        after = await traffic()
        assert max(before) * num_shards / sum(before) >= 3
        assert max(after) * num_shards / sum(after) <= 1.3
        assert answer.applied
        assert list(answer.before.num_rows) == before
        assert answer.after.layers_max_over_mean <= 1.3
        assert max(len(shard.store.keys) for shard in shards) <= most - 1
        placement = await served.call("GetPlacement", pb.GetPlacementRequest())
        assert placement.version == answer.version
        assert all(s.expert_bytes <= s.max_expert_bytes for s in placement.shards)
        assert [s.num_experts for s in placement.shards] == [len(s.store.keys) for s in shards]
        added = {(m.layer, m.expert, m.shard) for m in answer.moves if m.added}
        held = {(e.layer, e.expert, shard) for e in placement.experts for shard in e.shards}
        assert added
        assert added <= held
