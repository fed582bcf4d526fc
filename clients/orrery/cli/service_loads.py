"""What each kind of service is doing, in words and in the cells of a table."""

from __future__ import annotations

from orrery.cli.services import AnyLoad, ShardLoad
from orrery.results import (
    EmbeddingLoad,
    ImageLoad,
    Load,
    MoeLoad,
    RagLoad,
    RetrievalLoad,
)

__all__ = ["LOAD_HEADINGS", "load_cells", "load_details", "num_waiting"]

LOAD_HEADINGS = ("RUNNING", "WAITING")
_MIB = 1 << 20


def load_cells(load: AnyLoad | None) -> tuple[str, ...]:
    """A load under `LOAD_HEADINGS`."""
    if load is None or isinstance(load, ShardLoad):
        return ("-",) * len(LOAD_HEADINGS)
    waiting = num_waiting(load)
    return (str(load.num_running), "-" if waiting is None else str(waiting))


def num_waiting(load: AnyLoad) -> int | None:
    """How many of what it queues wait; None = it has no queue of its own."""
    match load:
        case Load():
            return load.num_waiting
        case EmbeddingLoad():
            return load.num_waiting_inputs
        case ImageLoad():
            return load.num_waiting_images
        case MoeLoad():
            return load.num_waiting_tokens
        case RetrievalLoad():
            return load.num_waiting_searches
        case RagLoad() | ShardLoad():
            return None


def load_details(load: AnyLoad | None) -> str:
    """What more there is to say of a load, in one line; may be empty."""
    match load:
        case Load():
            used = (load.num_blocks - load.num_free_blocks) / max(1, load.num_blocks)
            hits = load.prefix_cache_hit_rate
            return f"{used:.0%} of the KV cache in use, {hits:.0%} of prompt tokens found in it"
        case EmbeddingLoad():
            return _embedding_details(load)
        case ImageLoad():
            places = f"{load.num_running_images} of {load.max_running_images} places in use"
            done = f"{load.num_images_done} pictures in {load.num_steps_done} steps so far"
            return f"{places}, {done}"
        case MoeLoad():
            dispatching = f"{load.num_dispatching} calls to shards"
            return f"{dispatching}; {load.num_tokens_done} tokens, of each layer, so far"
        case ShardLoad():
            held, most = load.expert_bytes / _MIB, load.max_expert_bytes / _MIB
            return f"{load.num_experts} experts in {held:.1f} of {most:.1f} MiB"
        case RetrievalLoad():
            return _retrieval_details(load)
        case RagLoad():
            return _rag_details(load)
    return ""


def _embedding_details(load: EmbeddingLoad) -> str:
    asked = load.cache_hits + load.cache_misses
    told = [f"{load.cache_hits / asked:.0%} of {asked} inputs from the cache"] if asked else []
    told += [] if load.cache_available else ["no cache of embeddings: its store is away"]
    return "; ".join(told)


def _rag_details(load: RagLoad) -> str:
    stages = sorted(load.num_running_by_stage.items())
    told = [f"{count} in {stage}" for stage, count in stages if count]
    told += [] if load.conversations_available else ["no conversations: their store is away"]
    return ", ".join(told)


def _retrieval_details(load: RetrievalLoad) -> str:
    counts = (
        f"{load.num_collections} collections, {load.num_documents} documents, "
        f"{load.num_chunks} chunks"
    )
    behind = "" if load.applied_position == load.log_position else "; behind its log"
    return counts + behind + ("" if load.log_available else "; no writes: its log is away")
