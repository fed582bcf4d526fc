"""Every metric of the platform, as the services declare them; docs/metrics.md is written from it.

    python -m deploy.metrics_catalogue    # writes docs/metrics.md

A registry that only notes what is declared is given to whatever declares metrics in each service.
So what is documented, and what dashboards and alert rules are checked against, is what is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from deploy.ray_environment import REPOSITORY
from services.embedding.metrics import BatchMetrics, CacheMetrics, RequestMetrics
from services.gateway.metrics import HttpMetrics
from services.generation.engine_metrics import EngineMetrics
from services.image.metrics import ImageMetrics
from services.moe.router.metrics import RouterMetrics
from services.moe.shard.metrics import ShardMetrics
from services.rag.metrics import RagMetrics
from services.retrieval.log.metrics import LogMetrics
from services.retrieval.work_metrics import WorkMetrics
from services.runtime.common_metrics import announce_build
from services.runtime.metrics import (
    LATENCY_BUCKETS_S,
    PREFIX,
    TOKEN_LATENCY_BUCKETS_S,
    MetricsRegistry,
)
from services.runtime.rpc_metrics import RpcMetrics

__all__ = ["COMMON_LABELS", "DOCUMENT", "Instrument", "catalogue", "render"]

DOCUMENT = REPOSITORY / "docs" / "metrics.md"
# On every metric: the last three are Ray Serve's.
COMMON_LABELS = ("service", "model", "application", "deployment", "replica")

_Declare = Callable[[MetricsRegistry], object]
_SERVICES: Mapping[str, Sequence[_Declare]] = MappingProxyType(
    {
        "gateway": (HttpMetrics,),
        "generation": (RpcMetrics, EngineMetrics),
        "embedding": (RpcMetrics, RequestMetrics, BatchMetrics, CacheMetrics),
        "retrieval": (RpcMetrics, lambda registry: WorkMetrics(registry, 1), LogMetrics.of),
        "rag": (RpcMetrics, RagMetrics),
        "image": (RpcMetrics, ImageMetrics),
        "moe": (RpcMetrics, RouterMetrics),
        "moe_shard": (RpcMetrics, ShardMetrics),
    }
)
# They serve no model of their own.
_WITHOUT_MODEL = frozenset({"gateway", "retrieval"})
_NAMED_BUCKETS: Mapping[tuple[float, ...], str] = MappingProxyType(
    {LATENCY_BUCKETS_S: "of latencies", TOKEN_LATENCY_BUCKETS_S: "of tokens"}
)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `labels` are its own, beside those that all have; `services` export it."""

    kind: str  # counter, gauge, histogram
    name: str
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    services: tuple[str, ...] = ()

    @property
    def all_labels(self) -> frozenset[str]:
        """Those of its series."""
        common = set(COMMON_LABELS)
        if _WITHOUT_MODEL.issuperset(self.services):
            common.remove("model")
        return frozenset(common | set(self.labels))

    @property
    def unit(self) -> str:
        """As the end of its name says."""
        for end, unit in _UNITS.items():
            if self.name.endswith(end):
                return unit
        return "number"


_UNITS: Mapping[str, str] = MappingProxyType(
    {
        "_seconds": "seconds",
        "_bytes": "bytes",
        "_perc": "share",
        "_fraction": "share",
        "_entropy": "nats",
        "_over_mean": "ratio",
        "_available": "0 or 1",
        "_info": "1",
    }
)


def catalogue() -> dict[str, Instrument]:
    """All metrics by name. Raises `ValueError` for one that is declared in two ways."""
    found: dict[str, Instrument] = {}
    for service, declarations in _SERVICES.items():
        registry = _NotingRegistry()
        for declare in (announce_build, *declarations):
            declare(registry)
        for instrument in registry.noted:
            known = found.setdefault(instrument.name, instrument)
            if replace(known, services=()) != instrument:
                raise ValueError(f"{instrument.name} is declared in two ways, in {service} too")
            services = (*known.services, service)
            found[instrument.name] = replace(known, services=services)
    return found


def render(instruments: Mapping[str, Instrument]) -> str:
    """The document."""
    shared = [each for each in instruments.values() if len(each.services) > 1]
    parts = [_INTRODUCTION, _table("Several services", shared, names_services=True)]
    for service in _SERVICES:
        own = [each for each in instruments.values() if each.services == (service,)]
        parts.append(_table(f"`{service}`", own))
    return "\n".join(parts)


def _bounds(buckets: Sequence[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in buckets)


_INTRODUCTION = f"""\
# Metrics

Written by `python -m deploy.metrics_catalogue` from what the services declare: change it there.

Ray exports them on the metrics port (8090) of every node, with `ray_` before the name; the scrape
configurations in [deploy/prometheus](../deploy/prometheus) take that away, so that rules,
dashboards and queries say `orrery_...`. Every series has the labels `service` and `model` (but not
those of the gateway and of retrieval, which serve no model of their own) and Ray Serve's
`application`, `deployment` and `replica`. All labels are bounded: by the contract, the routes, the
configuration or the model, never by what clients send.

Names are vLLM's where the thing is the same. A service publishes every five seconds and Ray every
ten, so what happened just now may not be there yet; a replica that stops waits, ten seconds at
most, until Ray has what it counted to its end. Ray calls the parts of a histogram (`_bucket`,
`_count`, `_sum`) gauges; they count as those of any histogram do, and are exact.

Two sets of buckets have names here, in seconds:

- of latencies: {_bounds(LATENCY_BUCKETS_S)}
- of tokens: {_bounds(TOKEN_LATENCY_BUCKETS_S)}
"""


def _table(title: str, instruments: Sequence[Instrument], *, names_services: bool = False) -> str:
    head = ["metric", "kind", "unit", "labels", "what", *(["services"] if names_services else [])]
    lines = [f"## {title}", "", _row(head), _row(["---"] * len(head))]
    for each in sorted(instruments, key=lambda instrument: instrument.name):
        cells = [f"`{each.name}`", each.kind, each.unit, _labels(each), _what(each)]
        if names_services:
            cells.append(
                "all" if len(each.services) == len(_SERVICES) else ", ".join(each.services)
            )
        lines.append(_row(cells))
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _labels(instrument: Instrument) -> str:
    return ", ".join(f"`{label}`" for label in instrument.labels)


def _what(instrument: Instrument) -> str:
    if not instrument.buckets:
        return instrument.description
    bounds = _NAMED_BUCKETS.get(instrument.buckets) or _bounds(instrument.buckets)
    return f"{instrument.description} Buckets: {bounds}."


class _NotingRegistry:
    """A `services.runtime.metrics.MetricsRegistry` that exports nothing."""

    def __init__(self) -> None:
        self.noted: list[Instrument] = []

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> _Mute:
        return self._note(Instrument("counter", PREFIX + name, description, tuple(labels)))

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> _Mute:
        return self._note(Instrument("gauge", PREFIX + name, description, tuple(labels)))

    def histogram(
        self, name: str, description: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> _Mute:
        bounds = tuple(float(bound) for bound in buckets)
        return self._note(
            Instrument("histogram", PREFIX + name, description, tuple(labels), bounds)
        )

    def _note(self, instrument: Instrument) -> _Mute:
        self.noted.append(instrument)
        return _Mute()


class _Mute:
    """Takes what is recorded, and forgets it."""

    def inc(self, value: float = 1.0, **labels: str) -> None: ...
    def set(self, value: float, **labels: str) -> None: ...
    def observe(self, value: float, **labels: str) -> None: ...


if __name__ == "__main__":
    DOCUMENT.write_text(render(catalogue()))
