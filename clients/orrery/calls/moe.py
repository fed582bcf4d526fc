"""Calls of the mixture-of-experts router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from orrery.calls.common import CallOptions, call
from orrery.methods import (
    ANALYZE_ROUTING,
    GET_EXPERT_LOAD,
    GET_MOE_LOAD,
    GET_MOE_MODEL,
    GET_PLACEMENT,
    REBALANCE,
    ROUTE,
    Method,
)
from orrery.parsing.moe import (
    parse_analysis,
    parse_expert_load,
    parse_moe_load,
    parse_moe_model,
    parse_placement,
    parse_rebalanced,
    parse_route,
)
from orrery.requests.common import assign
from orrery.requests.moe import (
    RoutingInput,
    build_analyze,
    build_expert_load,
    build_rebalance,
    build_route,
)
from orrery.results import (
    ExpertLoad,
    MoeLoad,
    MoeModelInfo,
    Placement,
    RebalanceResult,
    RouteResult,
    RoutingAnalysis,
)
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import moe_pb2 as pb

__all__ = ["MoeCalls"]

ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")


class MoeCalls:
    """`application` None = the one of the client's settings.

    The model of the options is what the application must serve; None = whatever it serves.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings

    def analyze(
        self, text: str, application: str | None, options: CallOptions
    ) -> Steps[RoutingAnalysis]:
        """How a text is routed."""
        request = build_analyze(text)
        return self._call(ANALYZE_ROUTING, request, parse_analysis, application, options)

    def route(
        self, prompt: RoutingInput, application: str | None, options: CallOptions
    ) -> Steps[RouteResult]:
        """Where the tokens of a text go."""
        return self._call(ROUTE, build_route(prompt), parse_route, application, options)

    def expert_load(
        self, window_s: int | None, application: str | None, options: CallOptions
    ) -> Steps[ExpertLoad]:
        """How many tokens went to each expert."""
        request = build_expert_load(window_s)
        return self._call(GET_EXPERT_LOAD, request, parse_expert_load, application, options)

    def placement(self, application: str | None, options: CallOptions) -> Steps[Placement]:
        """Which shard holds which expert."""
        request = pb.GetPlacementRequest()
        return self._call(GET_PLACEMENT, request, parse_placement, application, options)

    def rebalance(
        self,
        *,
        dry_run: bool,
        max_shard_bytes: int | None,
        application: str | None,
        options: CallOptions,
    ) -> Steps[RebalanceResult]:
        """Evens out the shards' load. What may have been applied is not repeated: a second answer
        would tell of no moves.
        """
        request = build_rebalance(dry_run=dry_run, max_shard_bytes=max_shard_bytes)
        return self._call(
            REBALANCE, request, parse_rebalanced, application, options, idempotent=dry_run
        )

    def model(self, application: str | None, options: CallOptions) -> Steps[MoeModelInfo]:
        """Sizes, gating, limits."""
        request = pb.GetMoeModelRequest()
        return self._call(GET_MOE_MODEL, request, parse_moe_model, application, options)

    def load(self, application: str | None, options: CallOptions) -> Steps[MoeLoad]:
        """What an application is doing."""
        name, request = self._name(application), pb.MoeRouterServiceGetLoadRequest()
        return call(self._settings, name, GET_MOE_LOAD, request, parse_moe_load, options)

    def _call(
        self,
        method: Method[Any, ResponseT],
        request: Any,
        parse: Callable[[ResponseT], ResultT],
        application: str | None,
        options: CallOptions,
        *,
        idempotent: bool = True,
    ) -> Steps[ResultT]:
        """Every request but `GetLoad`'s may name the model."""
        if options.model is not None:
            assign(request, "model", options.model)
        name = self._name(application)
        return call(self._settings, name, method, request, parse, options, idempotent=idempotent)

    def _name(self, application: str | None) -> str:
        return self._settings.services.moe if application is None else application
