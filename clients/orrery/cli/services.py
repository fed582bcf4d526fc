"""Which services the platform has, and what each is doing: asking them, whatever their kind.

Knows nothing of how that is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from orrery.client import Client
from orrery.errors import InternalError, NotFoundError, OrreryError
from orrery.results import (
    Application,
    EmbeddingLoad,
    ExpertLoad,
    ImageLoad,
    Load,
    MoeLoad,
    RagLoad,
    RetrievalLoad,
)

__all__ = [
    "OTHER",
    "READY",
    "AnyLoad",
    "Service",
    "ServiceLoad",
    "ShardLoad",
    "ask_loads",
    "find_services",
]

READY = "ready"
UNREACHABLE = "UNREACHABLE"
OTHER = "-"  # it has none of our gRPC services; its own service says how it is

# The router counts in slots of some seconds: it takes this for the shortest time that it can tell.
_SHORTEST_WINDOW_S = 1


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """What the router tells of an application that holds experts.

    Attributes:
        num_rows: What it computed in the last `window_s` seconds: tokens times their experts.
    """

    num_experts: int
    expert_bytes: int
    max_expert_bytes: int
    num_rows: int
    window_s: float


AnyLoad: TypeAlias = (
    Load | EmbeddingLoad | ImageLoad | RetrievalLoad | RagLoad | MoeLoad | ShardLoad
)


@dataclass(frozen=True, slots=True)
class Service:
    """An application and what it serves.

    `problem` is why that is not known. `ask` asks one of its replicas for its load; None = it has
    no service of ours that could be asked.
    """

    application: str
    model: str | None = None
    weight_hash: str | None = None
    problem: str | None = None
    ask: Callable[[], AnyLoad] | None = None


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """How a service is, and the load of one of its replicas; of a router, its experts' too.

    `reason` is why one that answers is not ready, in its own words.
    """

    state: str
    reason: str | None = None
    load: AnyLoad | None = None
    experts: ExpertLoad | None = None


def find_services(client: Client) -> tuple[Service, ...]:
    """Every application of the platform.

    Raises:
        OrreryError: The platform does not answer.
    """
    return tuple(_identified(client, each) for each in client.applications())


def _identified(client: Client, application: Application) -> Service:
    name, model = application.name, application.model
    if application.error is not None:
        return Service(name, problem=application.error.reason)
    if model is not None:
        return Service(name, model.name, model.weight_hash, ask=partial(client.load, name or None))
    for kind in _kinds(client, name):
        try:
            return kind(client, name)
        except (NotFoundError, InternalError):
            continue  # it has no such service
        except OrreryError as error:
            return Service(name, problem=error.reason)
    return Service(name)


_Kind: TypeAlias = Callable[[Client, str], Service]


def _kinds(client: Client, name: str) -> tuple[_Kind, ...]:
    """What an application may be, by its name. The platform finds methods by their last name
    alone, so that an application of another kind would answer `GetLoad` as well."""
    services = client.settings.services
    if not name:  # a plain gRPC server
        return (_embedding, _image, _moe, _retrieval, _rag)
    known = {
        services.retrieval: (_retrieval,),
        services.rag: (_rag,),
        services.image: (_image,),
        services.moe: (_moe,),
    }
    return known.get(name, (_embedding, _image))


def _embedding(client: Client, name: str) -> Service:
    found = client.embedding_model(name)
    ask = partial(client.embedding_load, name)
    return Service(name, found.model, found.weight_hash, ask=ask)


def _image(client: Client, name: str) -> Service:
    found = client.images.model(name)
    return Service(name, found.model, found.weight_hash, ask=partial(client.images.load, name))


def _moe(client: Client, name: str) -> Service:
    found = client.moe.model(name)
    return Service(name, found.model, found.weight_hash, ask=partial(client.moe.load, name))


def _retrieval(client: Client, name: str) -> Service:
    client.collections.load()  # it serves no model that could be asked for
    return Service(name, ask=client.collections.load)


def _rag(client: Client, name: str) -> Service:
    client.rag_load()
    return Service(name, ask=client.rag_load)


def ask_loads(client: Client, services: Sequence[Service]) -> list[ServiceLoad]:
    """What each of the services is doing, in their order. All are asked at once."""
    with ThreadPoolExecutor(max(1, len(services))) as pool:
        loads = list(pool.map(partial(_ask, client), services))
        routers = [number for number, each in enumerate(loads) if isinstance(each.load, MoeLoad)]
        names = [services[number].application for number in routers]
        experts = list(pool.map(partial(_ask_experts, client), names))
    for number, told in zip(routers, experts, strict=True):
        loads[number] = replace(loads[number], experts=told)
    shards = _shards(filter(None, experts))
    return [
        shards.get(service.application, load) if load.state == OTHER else load
        for service, load in zip(services, loads, strict=True)
    ]


def _ask(client: Client, service: Service) -> ServiceLoad:
    if service.ask is None:
        return ServiceLoad(service.problem or OTHER)
    try:
        load = service.ask()
    except OrreryError as error:
        return ServiceLoad(error.reason)
    try:
        client.check_ready(service.application)
    except OrreryError as error:
        return ServiceLoad(error.reason, error.message, load)
    return ServiceLoad(READY, load=load)


def _ask_experts(client: Client, router: str) -> ExpertLoad | None:
    """None = the router has just stopped answering."""
    try:
        return client.moe.expert_load(window_s=_SHORTEST_WINDOW_S, application=router)
    except OrreryError:
        return None


def _shards(experts: Iterable[ExpertLoad]) -> dict[str, ServiceLoad]:
    """Applications that hold experts; they answer nobody but their router, so it speaks of them."""
    return {
        shard.shard: ServiceLoad(
            READY if shard.reachable else UNREACHABLE,
            load=ShardLoad(
                num_experts=shard.num_experts,
                expert_bytes=shard.expert_bytes,
                max_expert_bytes=shard.max_expert_bytes,
                num_rows=shard.num_rows,
                window_s=each.window_s,
            ),
        )
        for each in experts
        for shard in each.shards
    }
