"""Requests of the mixture-of-experts router."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from orrery.requests.common import assign, assign_text_or_ids
from orrery.v1 import moe_pb2 as pb

__all__ = [
    "RoutingInput",
    "build_analyze",
    "build_expert_load",
    "build_rebalance",
    "build_route",
]

RoutingInput: TypeAlias = str | Iterable[int]
"""A text, or ids of the model's vocabulary."""


def build_analyze(text: str) -> pb.AnalyzeRequest:
    """An `Analyze` request."""
    request = pb.AnalyzeRequest()
    assign(request, "text", text)
    return request


def build_route(prompt: RoutingInput) -> pb.RouteRequest:
    """A `Route` request for a text or token ids."""
    request = pb.RouteRequest()
    assign_text_or_ids(request, prompt, "prompt")
    return request


def build_expert_load(window_s: int | None) -> pb.GetExpertLoadRequest:
    """A `GetExpertLoad` request."""
    request = pb.GetExpertLoadRequest()
    if window_s is not None:
        assign(request, "window_s", window_s)
    return request


def build_rebalance(*, dry_run: bool, max_shard_bytes: int | None) -> pb.RebalanceRequest:
    """A `Rebalance` request."""
    request = pb.RebalanceRequest()
    assign(request, "dry_run", dry_run)
    if max_shard_bytes is not None:
        assign(request, "max_shard_bytes", max_shard_bytes)
    return request
