"""What each kind of application is doing: asking it, and saying it in the cells of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from orrery.client import Client
from orrery.errors import InternalError, NotFoundError, OrreryError
from orrery.results import (
    Application,
    EmbeddingLoad,
    ImageLoad,
    Load,
    MoeLoad,
    RagLoad,
    RetrievalLoad,
)

__all__ = [
    "LOAD_HEADINGS",
    "OTHER",
    "READY",
    "AnyLoad",
    "ServiceLoad",
    "ask_load",
    "load_cells",
    "load_details",
]

AnyLoad: TypeAlias = Load | EmbeddingLoad | ImageLoad | RetrievalLoad | RagLoad | MoeLoad

READY = "ready"
OTHER = "-"  # it has none of our gRPC services; its own service says how it is
LOAD_HEADINGS = ("RUNNING", "WAITING")


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """What an application serves, how it is, and the load of one of its replicas."""

    model: str | None
    state: str
    load: AnyLoad | None


def ask_load(client: Client, application: Application) -> ServiceLoad:
    """What an application says of itself, whatever it serves."""
    if application.error is not None:
        return ServiceLoad(None, application.error.reason, None)
    if application.model is not None:
        model = application.model.name
        try:
            return ServiceLoad(model, READY, client.load(application.name or None))
        except OrreryError as error:
            return ServiceLoad(model, error.reason, None)
    for ask in _kinds(client, application.name):
        try:
            return ask(client, application.name)
        except (NotFoundError, InternalError):
            continue  # it has no such service
        except OrreryError as error:
            return ServiceLoad(None, error.reason, None)
    return ServiceLoad(None, OTHER, None)


_Ask: TypeAlias = Callable[[Client, str], ServiceLoad]


def _kinds(client: Client, name: str) -> tuple[_Ask, ...]:
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


def _embedding(client: Client, name: str) -> ServiceLoad:
    model = client.embedding_model(name).model
    return ServiceLoad(model, READY, client.embedding_load(name))


def _image(client: Client, name: str) -> ServiceLoad:
    model = client.images.model(name).model
    return ServiceLoad(model, READY, client.images.load(name))


def _moe(client: Client, name: str) -> ServiceLoad:
    model = client.moe.model(name).model
    return ServiceLoad(model, READY, client.moe.load(name))


def _retrieval(client: Client, name: str) -> ServiceLoad:
    del name
    return ServiceLoad(None, READY, client.collections.load())


def _rag(client: Client, name: str) -> ServiceLoad:
    del name
    return ServiceLoad(None, READY, client.rag_load())


def load_cells(load: AnyLoad | None) -> tuple[str, ...]:
    """A load under `LOAD_HEADINGS`."""
    if load is None:
        return ("-",) * len(LOAD_HEADINGS)
    return (str(load.num_running), _waiting(load))


def _waiting(load: AnyLoad) -> str:
    if isinstance(load, Load):
        return str(load.num_waiting)
    if isinstance(load, EmbeddingLoad):
        return str(load.num_waiting_inputs)
    if isinstance(load, ImageLoad):
        return str(load.num_waiting_images)
    if isinstance(load, MoeLoad):
        return str(load.num_waiting_tokens)
    return str(load.num_waiting_searches) if isinstance(load, RetrievalLoad) else "-"


def load_details(load: AnyLoad | None) -> str:
    """What more there is to say of a load, in one line; may be empty."""
    if isinstance(load, Load):
        used = (load.num_blocks - load.num_free_blocks) / max(1, load.num_blocks)
        hits = load.prefix_cache_hit_rate
        return f"{used:.0%} of the KV cache in use, {hits:.0%} of prompt tokens found in it"
    if isinstance(load, EmbeddingLoad):
        asked = load.cache_hits + load.cache_misses
        told = [f"{load.cache_hits / asked:.0%} of {asked} inputs from the cache"] if asked else []
        told += [] if load.cache_available else ["no cache of embeddings: its store is away"]
        return "; ".join(told)
    if isinstance(load, ImageLoad):
        places = f"{load.num_running_images} of {load.max_running_images} places in use"
        return f"{places}, {load.num_images_done} pictures in {load.num_steps_done} steps so far"
    if isinstance(load, MoeLoad):
        dispatching = f"{load.num_dispatching} calls to shards"
        return f"{dispatching}; {load.num_tokens_done} tokens, of each layer, so far"
    if isinstance(load, RetrievalLoad):
        return _retrieval_details(load)
    if isinstance(load, RagLoad):
        stages = sorted(load.num_running_by_stage.items())
        told = [f"{count} in {stage}" for stage, count in stages if count]
        told += [] if load.conversations_available else ["no conversations: their store is away"]
        return ", ".join(told)
    return ""


def _retrieval_details(load: RetrievalLoad) -> str:
    counts = (
        f"{load.num_collections} collections, {load.num_documents} documents, "
        f"{load.num_chunks} chunks"
    )
    behind = "" if load.applied_position == load.log_position else "; behind its log"
    return counts + behind + ("" if load.log_available else "; no writes: its log is away")
