"""What the services do over time: rates from what their loads count, replica by replica.

Every replica counts for itself, and each call reaches another one: so its counts are compared with
its own earlier ones, and an application is the sum of those heard of lately. Performs no calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orrery.cli.service_loads import num_waiting
from orrery.cli.services import AnyLoad, ShardLoad
from orrery.results import (
    EmbeddingLoad,
    ImageLoad,
    Load,
    MoeLoad,
    RagLoad,
    RetrievalLoad,
)

__all__ = ["Activity", "ActivityMeter"]


@dataclass(frozen=True, slots=True)
class Activity:
    """What the replicas heard of lately do together. None = this kind of service does not say.

    Attributes:
        per_second: What is done, by its name; None = no replica has been heard of twice.
        usage: Share of the KV cache, or of the places for pictures, in use.
    """

    num_replicas: int
    num_running: int | None
    num_waiting: int | None
    per_second: Mapping[str, float] | None
    usage: float | None
    resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Heard:
    """The last that was heard of a replica."""

    at_s: float
    load: AnyLoad
    per_second: Mapping[str, float] | None


class ActivityMeter:
    """Remembers the loads of every replica for a while. Times are of one clock, in seconds."""

    def __init__(self, forget_after_s: float) -> None:
        self._forget_after_s = forget_after_s
        self._heard: dict[str, dict[int, _Heard]] = {}

    def add(self, application: str, load: AnyLoad, now_s: float) -> Activity:
        """Takes in what one of its replicas says; returns what all of them do."""
        heard = self._heard.setdefault(application, {})
        for replica in [key for key, each in heard.items() if self._is_old(each, now_s)]:
            del heard[replica]
        replica = _replica(load)
        per_second = _rates(heard.get(replica), load, now_s)
        heard[replica] = _Heard(now_s, load, per_second)
        return _together(list(heard.values()))

    def _is_old(self, heard: _Heard, now_s: float) -> bool:
        return now_s - heard.at_s > self._forget_after_s


def _replica(load: AnyLoad) -> int:
    """Replicas are told apart by their processes. A router and a shard have one each."""
    return 0 if isinstance(load, MoeLoad | ShardLoad) else load.process_id


def _rates(last: _Heard | None, load: AnyLoad, now_s: float) -> Mapping[str, float] | None:
    if isinstance(load, ShardLoad):
        return {"rows": load.num_rows / load.window_s} if load.window_s > 0 else None
    if last is None or now_s <= last.at_s:
        return None
    counts, before = _counts(load), _counts(last.load)
    if any(counts[name] < before[name] for name in counts):
        return None  # another process under the same number
    return {name: (counts[name] - before[name]) / (now_s - last.at_s) for name in counts}


def _counts(load: AnyLoad) -> dict[str, int]:
    """What has been done since the start. The first is what the service is for."""
    match load:
        case Load():
            return {
                "requests": load.num_finished,
                "prompt_tokens": load.num_prompt_tokens,
                "cached_tokens": load.num_cached_tokens,
                "completion_tokens": load.num_completion_tokens,
                "preemptions": load.num_preemptions,
            }
        case EmbeddingLoad():
            return {
                "inputs": load.num_inputs_done,
                "tokens": load.num_tokens_done,
                "cache_hits": load.cache_hits,
                "cache_misses": load.cache_misses,
            }
        case ImageLoad():
            return {"pictures": load.num_images_done, "steps": load.num_steps_done}
        case MoeLoad():
            return {"tokens": load.num_tokens_done}
        case RetrievalLoad():
            return {"searches": load.num_searches_done}
        case RagLoad():
            return {"questions": load.num_questions_done}
        case ShardLoad():
            return {}


def _together(heard: list[_Heard]) -> Activity:
    loads = [each.load for each in heard]
    rates = [each.per_second for each in heard if each.per_second is not None]
    waiting = [count for count in map(num_waiting, loads) if count is not None]
    spoken = [load for load in loads if not isinstance(load, ShardLoad)]
    used, capacity = (sum(parts) for parts in zip(*map(_used_of, loads), strict=True))
    return Activity(
        num_replicas=len(heard),
        num_running=sum(load.num_running for load in spoken) if spoken else None,
        num_waiting=sum(waiting) if waiting else None,
        per_second={name: sum(each[name] for each in rates) for name in rates[0]}
        if rates
        else None,
        usage=used / capacity if capacity else None,
        resident_bytes=sum(load.resident_bytes for load in spoken) if spoken else None,
    )


def _used_of(load: AnyLoad) -> tuple[int, int]:
    """What is in use of what, and how much there is; 0 of 0 where nothing is limited so."""
    match load:
        case Load():
            return load.num_blocks - load.num_free_blocks, load.num_blocks
        case ImageLoad():
            return load.num_running_images, load.max_running_images
        case ShardLoad():
            return load.expert_bytes, load.max_expert_bytes
        case _:
            return 0, 0
