"""The work of the router behind its RPCs: what is asked is checked, then routed, sent, counted,
moved. Knows nothing of gRPC, protobuf or Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from services.moe.model_facts import ModelFacts
from services.moe.router.analysis import TextAnalysis, analyze
from services.moe.router.config import RouterConfig
from services.moe.router.dispatcher import INLINE_NUMBERS, Dispatched, Dispatcher
from services.moe.router.fleet import Fleet, Shard
from services.moe.router.gates import LayerGates, Routed
from services.moe.router.load import LoadWindow, WindowLoad
from services.moe.router.metrics import RouterMetrics
from services.moe.router.placement import Placement
from services.moe.router.rebalancing import Rebalanced, Rebalancer
from services.moe.router.shards import ShardReport
from services.moe.router.text_routing import RoutedText, TextRouting
from services.moe.router.token_classes import token_classes
from services.runtime.errors import InvalidRequest
from services.runtime.offload import offload_if_large

__all__ = ["RouterService"]

_METRICS_INTERVAL_S = 5.0


class RouterService:
    """One model's sparse layers, for one event loop. `start` and `close` it there."""

    def __init__(
        self,
        config: RouterConfig,
        model: ModelFacts,
        gates: LayerGates,
        dispatcher: Dispatcher,
        fleet: Fleet,
        load: LoadWindow,
        metrics: RouterMetrics,
    ) -> None:
        self._config = config
        self._model = model
        self._gates = gates
        self._dispatcher = dispatcher
        self._fleet = fleet
        self._load = load
        self._metrics = metrics
        self._device = torch.device(config.device)
        self.rebalancer = Rebalancer(fleet, load, model.layers, model.bytes_per_expert, metrics)
        self._flushing: asyncio.Task[None] | None = None
        # Set once, where texts can be read: it needs the dispatch, which is here.
        self.texts: TextRouting | None = None

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def max_tokens(self) -> int:
        """Of one call."""
        limits = self._config.limits
        most = min(self._model.max_message_rows, limits.max_waiting_tokens)
        return min(limits.max_tokens or most, most)

    @property
    def dispatcher(self) -> Dispatcher:
        return self._dispatcher

    @property
    def placement(self) -> Placement:
        return self._fleet.table.current

    @property
    def shards(self) -> Mapping[str, Shard]:
        """By name, in the order of the configuration."""
        return self._fleet.shards

    @property
    def failure(self) -> str | None:
        """Why this router has to be replaced; None = it has not. A lost shard makes it no worse."""
        if not self._fleet.watched:
            return "the shards are not looked after any more"
        if self._flushing is None or self._flushing.done():
            return "the metrics are not looked after any more"
        return None

    @property
    def hindrance(self) -> str | None:
        """Why some tokens cannot be computed until a shard is back; None = all can."""
        return self._fleet.hindrance

    def start(self, reports: Mapping[str, ShardReport]) -> None:
        """Begins to look after the shards. `reports`: of those that have been asked already."""
        self._fleet.start(reports)
        self._metrics.looks_after(self.shards)
        self._metrics.placed(self.placement.version, 0)
        self._flushing = asyncio.create_task(self._keep_metrics())

    async def close(self) -> None:
        """Ends what is under way."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self.texts is not None:
            await self.texts.close()
        await self._dispatcher.close()
        await self._fleet.close()

    async def dispatch(
        self, layer: int, hidden: Tensor, source: Hashable, deadline_s: float
    ) -> Dispatched:
        """hidden [T, hidden_size] of a sparse layer. Raises as `Dispatcher.dispatch`."""
        hidden = hidden.to(self._device)
        return await self._dispatcher.dispatch(layer, hidden, source, deadline_s)

    async def route(self, layer: int, hidden: Tensor) -> Routed:
        """Computes no expert, and counts as no load."""
        return await offload_if_large(
            hidden.numel(),
            lambda: self._gates.route(layer, hidden.to(self._device)),
            above=INLINE_NUMBERS,
        )

    async def route_text(self, text: str, deadline_s: float) -> RoutedText:
        """Of all sparse layers. Raises `InvalidRequest`, and as `dispatch`."""
        self._check_text(text)
        return await self._texts().route_text(text, "text", deadline_s)

    async def route_ids(self, token_ids: Sequence[int], deadline_s: float) -> RoutedText:
        """Of all sparse layers. Raises `InvalidRequest`, and as `dispatch`."""
        return await self._texts().route_ids(token_ids, "token_ids", deadline_s)

    async def analyze(self, text: str, deadline_s: float) -> tuple[RoutedText, TextAnalysis]:
        """Raises as `route_text`."""
        routed = await self.route_text(text, deadline_s)
        classes = token_classes(routed.tokens)
        found = await asyncio.to_thread(analyze, routed.layers, classes, self._model.gating.scores)
        return routed, found

    def load(self, window_s: float | None = None) -> WindowLoad:
        """Over the last so many seconds."""
        return self._load.total(window_s)

    async def rebalance(
        self, max_shard_bytes: int | None, *, dry_run: bool, deadline_s: float
    ) -> Rebalanced:
        """Raises as `Rebalancer.rebalance`."""
        return await self.rebalancer.rebalance(
            max_shard_bytes, dry_run=dry_run, deadline_s=deadline_s
        )

    def _texts(self) -> TextRouting:
        if self.texts is None:
            raise InvalidRequest(
                "text: this application reads no texts; send hidden states", field="text"
            )
        return self.texts

    def _check_text(self, text: str) -> None:
        limit = self._config.limits.max_text_bytes
        if not text:
            raise InvalidRequest("text: expected a text that is not empty", field="text")
        if len(text) > limit or len(text.encode(errors="replace")) > limit:
            raise InvalidRequest(f"text: expected at most {limit} bytes of UTF-8", field="text")

    async def _keep_metrics(self) -> None:
        try:
            while True:
                self._metrics.flush(self._model.layers, self._load.total())
                await asyncio.sleep(_METRICS_INTERVAL_S)
        except asyncio.CancelledError:
            self._metrics.flush(self._model.layers, self._load.total())  # what came since
            raise
