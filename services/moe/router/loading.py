"""From the settings, and what the shards hold already, to a router that runs.

A router keeps nothing that the shards do not know: one that is started anew asks them what they
hold and goes on from there. Knows nothing of serving.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from services.engine.devices import use_threads
from services.engine.expert_weights import load_gates, load_shared_experts
from services.moe.model_facts import ModelFacts, read_model_facts
from services.moe.router.capacity import Capacity
from services.moe.router.config import RouterConfig
from services.moe.router.dispatcher import Dispatcher
from services.moe.router.exchange import Exchange
from services.moe.router.fleet import Fleet
from services.moe.router.gates import LayerGates
from services.moe.router.load import LoadWindow
from services.moe.router.metrics import RouterMetrics
from services.moe.router.placement import Homes, PlacementTable, even_homes, held_by
from services.moe.router.rebalancing import places_of
from services.moe.router.service import RouterService
from services.moe.router.shards import ShardClient, ShardReport
from services.moe.router.text_routing import trunk_routing
from services.runtime.errors import NotReady, OrreryError

__all__ = ["first_homes", "load_model", "start_router"]

_LOG = logging.getLogger("orrery.moe.router")
_REPORT_TIMEOUT_S = 5.0
_ASK_AGAIN_S = 0.5


async def load_model(config: RouterConfig, model_folder: str) -> tuple[ModelFacts, LayerGates]:
    """Reads beside the event loop. Raises as `read_model_facts`."""

    def read() -> tuple[ModelFacts, LayerGates]:
        use_threads(config.num_threads)
        model = read_model_facts(model_folder, config.dtype)
        gates = load_gates(model.folder, config.dtype, config.device)
        shared = load_shared_experts(model.folder, config.dtype, config.device)
        return model, LayerGates(gates, shared)

    return await asyncio.to_thread(read)


async def start_router(
    config: RouterConfig,
    model: ModelFacts,
    gates: LayerGates,
    clients: Mapping[str, ShardClient],
    metrics: RouterMetrics,
) -> RouterService:
    """Finds the shards, and looks after them from then on. Raises `NotReady` where those that
    answer in time cannot hold all experts.
    """
    limit_s = config.failures.start_timeout_s
    reports = await _reports(clients, model.weight_hash, limit_s)
    try:
        homes = first_homes(model, reports)
    except ValueError as error:
        raise NotReady(f"shards: {error}") from error
    load = LoadWindow(model.layers, model.num_experts, config.shards, config.load_window_s)
    fleet = Fleet(clients, PlacementTable(homes), model.weight_hash, config.failures)
    exchange = Exchange(fleet, config.failures, load, metrics, model.max_message_rows)
    capacity = None
    if config.capacity.factor is not None:
        capacity = Capacity(config.capacity.factor, config.capacity.policy, model.gating.scores)
    dispatcher = Dispatcher(gates, exchange, capacity, load, metrics, config)
    service = RouterService(config, model, gates, dispatcher, fleet, load, metrics)
    if config.text is not None:
        source = object()
        service.texts = trunk_routing(
            config,
            config.text,
            model,
            lambda layer, hidden, deadline_s: service.dispatch(layer, hidden, source, deadline_s),
        )
    service.start(reports)
    return service


def first_homes(model: ModelFacts, reports: Mapping[str, ShardReport]) -> Homes:
    """What the shards hold stays where it is; the rest is dealt out among those with room.

    Raises `ValueError` where they have too little.
    """
    held = {
        key: tuple(name for name, report in reports.items() if key in report.keys)
        for key in model.keys
    }
    homes = {key: shards for key, shards in held.items() if shards}
    limits = {name: report.max_expert_bytes for name, report in reports.items()}
    room = {
        name: places - len(held_by(homes, name))
        for name, places in places_of(limits, model.bytes_per_expert).items()
    }
    missing = [key for key in model.keys if key not in homes]
    return {**homes, **even_homes(missing, room)}


async def _reports(
    clients: Mapping[str, ShardClient], weight_hash: str, limit_s: float
) -> dict[str, ShardReport]:
    """Of all shards of this model, or of those that have answered by then, in their order."""
    end_s = time.monotonic() + limit_s

    async def report(name: str) -> ShardReport | None:
        while True:
            try:
                found = await clients[name].report(_REPORT_TIMEOUT_S)
                if found.weight_hash == weight_hash:
                    return found
                detail = f"it serves other weights: {found.weight_hash}"
            except OrreryError as error:
                detail = error.message
            if time.monotonic() > end_s:
                _LOG.warning("shard_absent", extra={"shard": name, "detail": detail})
                return None
            await asyncio.sleep(_ASK_AGAIN_S)

    answers = await asyncio.gather(*map(report, clients))
    found = zip(clients, answers, strict=True)
    return {name: answer for name, answer in found if answer is not None}
