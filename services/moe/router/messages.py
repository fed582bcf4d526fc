"""Protobuf messages of `moe.proto` to and from the domain, field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from orrery.v1 import moe_pb2 as pb
from services.moe.model_facts import ModelFacts
from services.moe.router.analysis import ClassShares, LayerStatistics
from services.moe.router.config import CapacityConfig
from services.moe.router.fleet import Shard
from services.moe.router.gates import Routed
from services.moe.router.load import WindowLoad
from services.moe.router.moves import Move
from services.moe.router.placement import Placement
from services.moe.router.planner import max_over_mean
from services.moe.router.rebalancing import Balance, Rebalanced
from services.moe.tensors import RowsFormat, check_finite, read_rows
from services.runtime.errors import InvalidRequest

__all__ = [
    "LayerInput",
    "capacity_policy",
    "class_routing",
    "expert_placements",
    "layer_analysis",
    "layer_input",
    "layer_loads",
    "layer_routing",
    "layers_routing",
    "rebalanced",
    "shard_statuses",
]

_POLICIES: Mapping[str, pb.CapacityPolicy] = MappingProxyType(
    {"drop": pb.CAPACITY_POLICY_DROP, "reroute": pb.CAPACITY_POLICY_REROUTE}
)


class LayerInput(NamedTuple):
    """Hidden states [T, hidden_size] that enter a sparse layer."""

    layer: int
    hidden: Tensor


def layer_input(
    message: pb.LayerInput, model: ModelFacts, max_tokens: int, field: str
) -> LayerInput:
    """A sparse layer and hidden states for it. Raises `InvalidRequest` naming the field."""
    if not message.HasField("hidden"):
        raise InvalidRequest(f"{field}: expected hidden states and their layer", field=field)
    if message.layer not in model.layers:
        raise InvalidRequest(
            f"{field}.layer: expected a sparse layer of the model, one of {list(model.layers)}, "
            f"got {message.layer}",
            field=f"{field}.layer",
        )
    expected = RowsFormat(model.hidden_size, model.dtype, max_tokens)
    hidden = read_rows(message.hidden, expected, f"{field}.hidden")
    check_finite(hidden, f"{field}.hidden")
    return LayerInput(message.layer, hidden)


def layer_routing(layer: int, routed: Routed) -> pb.LayerRouting:
    return pb.LayerRouting(
        layer=layer,
        expert_ids=routed.expert_ids.flatten().tolist(),
        weights=routed.weights.flatten().tolist(),
        entropies=routed.entropies.tolist(),
    )


def layers_routing(layers: Mapping[int, Routed]) -> list[pb.LayerRouting]:
    return [layer_routing(layer, routed) for layer, routed in sorted(layers.items())]


def expert_placements(placement: Placement) -> list[pb.ExpertPlacement]:
    return [
        pb.ExpertPlacement(layer=key.layer, expert=key.expert, shards=homes)
        for key, homes in sorted(placement.homes.items())
    ]


def shard_statuses(
    shards: Mapping[str, Shard], load: WindowLoad, model: ModelFacts
) -> list[pb.ShardStatus]:
    """As the router knows them, with the rows of the window."""
    return [
        pb.ShardStatus(
            shard=shard.name,
            reachable=shard.lost_s is None,
            num_experts=len(shard.ready),
            expert_bytes=len(shard.ready) * model.bytes_per_expert,
            max_expert_bytes=0 if shard.report is None else shard.report.max_expert_bytes,
            num_rows=int(num_rows),
        )
        for shard, num_rows in zip(shards.values(), load.rows, strict=True)
    ]


def layer_loads(model: ModelFacts, load: WindowLoad) -> list[pb.LayerLoad]:
    entropies = load.mean_entropies()
    return [
        pb.LayerLoad(
            layer=layer,
            num_tokens=load.tokens[row].tolist(),
            max_over_mean=max_over_mean(load.tokens[row].astype(float)),
            mean_entropy=float(entropies[row]),
            num_dropped=int(load.num_dropped[row]),
        )
        for row, layer in enumerate(model.layers)
    ]


def rebalanced(done: Rebalanced) -> pb.RebalanceResponse:
    """All but what is the call's own."""
    return pb.RebalanceResponse(
        version=done.version,
        applied=done.applied,
        before=_balance(done.before),
        after=_balance(done.after),
        moves=[*_moves(done.adds, added=True), *_moves(done.drops, added=False)],
    )


def layer_analysis(found: LayerStatistics) -> pb.LayerAnalysis:
    return pb.LayerAnalysis(
        routing=layer_routing(found.layer, found.routed),
        load_balancing_loss=found.load_balancing_loss,
        z_loss=found.z_loss,
        shares=found.shares,
    )


def class_routing(found: ClassShares) -> pb.TokenClassRouting:
    return pb.TokenClassRouting(
        token_class=found.token_class,
        num_tokens=found.num_tokens,
        layer=found.layer,
        shares=found.shares,
    )


def capacity_policy(config: CapacityConfig) -> pb.CapacityPolicy:
    """Unspecified where all rows are taken."""
    if config.factor is None:
        return pb.CAPACITY_POLICY_UNSPECIFIED
    return _POLICIES[config.policy]


def _balance(balance: Balance) -> pb.ShardBalance:
    return pb.ShardBalance(
        max_over_mean=balance.max_over_mean,
        num_rows=[round(rows) for rows in balance.rows],
        layers_max_over_mean=balance.layers_max_over_mean,
    )


def _moves(moves: Iterable[Move], *, added: bool) -> list[pb.ExpertMove]:
    return [
        pb.ExpertMove(layer=key.layer, expert=key.expert, shard=shard, added=added)
        for key, shard in moves
    ]
