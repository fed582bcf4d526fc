"""Answers of the mixture-of-experts router."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from orrery.parsing.common import name_of, same_fields, timing_of
from orrery.results import (
    ExpertLoad,
    ExpertMove,
    ExpertPlacement,
    LayerAnalysis,
    LayerLoad,
    LayerRouting,
    MoeLoad,
    MoeModelInfo,
    Placement,
    RebalanceResult,
    RouteResult,
    RoutingAnalysis,
    ShardBalance,
    ShardStatus,
    TokenClassRouting,
)
from orrery.v1 import moe_pb2 as pb
from orrery.v1 import tensor_pb2

__all__ = [
    "parse_analysis",
    "parse_expert_load",
    "parse_moe_load",
    "parse_moe_model",
    "parse_placement",
    "parse_rebalanced",
    "parse_route",
]

ItemT = TypeVar("ItemT")

_DTYPES = {
    "float32": tensor_pb2.TENSOR_DTYPE_FLOAT32,
    "bfloat16": tensor_pb2.TENSOR_DTYPE_BFLOAT16,
}
_CAPACITY_POLICIES = {
    "drop": pb.CAPACITY_POLICY_DROP,
    "reroute": pb.CAPACITY_POLICY_REROUTE,
}


def parse_analysis(response: pb.AnalyzeResponse) -> RoutingAnalysis:
    """How a text is routed."""
    k = response.num_experts_per_token
    return same_fields(
        RoutingAnalysis,
        response,
        token_ids=tuple(response.token_ids),
        tokens=tuple(response.tokens),
        layers=tuple(
            same_fields(
                LayerAnalysis,
                layer,
                routing=_routing(layer.routing, k),
                shares=tuple(layer.shares),
            )
            for layer in response.layers
        ),
        token_classes=tuple(
            same_fields(TokenClassRouting, each, shares=tuple(each.shares))
            for each in response.token_classes
        ),
        timing=timing_of(response.timing),
    )


def parse_route(response: pb.RouteResponse) -> RouteResult:
    """Where tokens go."""
    k = response.num_experts_per_token
    return same_fields(
        RouteResult,
        response,
        token_ids=tuple(response.token_ids),
        layers=tuple(_routing(layer, k) for layer in response.layers),
        timing=timing_of(response.timing),
    )


def parse_expert_load(response: pb.GetExpertLoadResponse) -> ExpertLoad:
    """How many tokens went where."""
    return same_fields(
        ExpertLoad,
        response,
        layers=tuple(
            same_fields(LayerLoad, layer, num_tokens=tuple(layer.num_tokens))
            for layer in response.layers
        ),
        shards=_shards(response.shards),
    )


def parse_placement(response: pb.GetPlacementResponse) -> Placement:
    """Which shard holds which expert."""
    return same_fields(
        Placement,
        response,
        experts=tuple(
            same_fields(ExpertPlacement, each, shards=tuple(each.shards))
            for each in response.experts
        ),
        shards=_shards(response.shards),
    )


def parse_rebalanced(response: pb.RebalanceResponse) -> RebalanceResult:
    """What was moved, or would be."""
    return same_fields(
        RebalanceResult,
        response,
        before=_balance(response.before),
        after=_balance(response.after),
        moves=tuple(same_fields(ExpertMove, move) for move in response.moves),
    )


def parse_moe_model(response: pb.GetMoeModelResponse) -> MoeModelInfo:
    """Sizes, gating, limits."""
    dropless = response.capacity_policy == pb.CAPACITY_POLICY_UNSPECIFIED
    policy = name_of(_CAPACITY_POLICIES, response.capacity_policy)
    return same_fields(
        MoeModelInfo,
        response,
        aliases=tuple(response.aliases),
        dtype=name_of(_DTYPES, response.dtype),
        layers=tuple(response.layers),
        capacity_factor=None if dropless else response.capacity_factor,
        capacity_policy=None if dropless else policy,
    )


def parse_moe_load(response: pb.MoeRouterServiceGetLoadResponse) -> MoeLoad:
    """What the router is doing."""
    return same_fields(MoeLoad, response)


def _routing(message: pb.LayerRouting, k: int) -> LayerRouting:
    """`k`: experts of a token, which stand side by side in the message."""
    return same_fields(
        LayerRouting,
        message,
        expert_ids=_groups(message.expert_ids, k),
        weights=_groups(message.weights, k),
        entropies=tuple(message.entropies),
    )


def _groups(items: Sequence[ItemT], size: int) -> tuple[tuple[ItemT, ...], ...]:
    return tuple(tuple(items[at : at + size]) for at in range(0, len(items), size))


def _shards(messages: Iterable[pb.ShardStatus]) -> tuple[ShardStatus, ...]:
    return tuple(same_fields(ShardStatus, message) for message in messages)


def _balance(message: pb.ShardBalance) -> ShardBalance:
    return same_fields(ShardBalance, message, num_rows=tuple(message.num_rows))
