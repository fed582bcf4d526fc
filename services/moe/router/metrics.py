"""What the router tells about itself. Labels are bounded by the model's layers and the shards.

Knows no exporter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from services.moe.router.load import WindowLoad
from services.moe.router.planner import max_over_mean
from services.runtime.errors import (
    ERROR_TABLE,
    DeadlineExceeded,
    DependencyDown,
    Internal,
    NotReady,
    Overloaded,
    ResourceNotFound,
)
from services.runtime.metrics import TOKEN_LATENCY_BUCKETS_S, MetricsRegistry

__all__ = ["RouterMetrics"]

# As calls to a shard fail that is lost, late, incomplete, busy or broken.
_SHARD_ERRORS = (
    DependencyDown, NotReady, DeadlineExceeded, ResourceNotFound, Overloaded, Internal,
)  # fmt: skip
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class RouterMetrics:
    """Made once per router."""

    def __init__(self, registry: MetricsRegistry) -> None:
        gauge, counter, histogram = registry.gauge, registry.counter, registry.histogram
        layer, shard = ("layer",), ("shard",)
        self._imbalance = gauge(
            "moe_load_max_over_mean", "Busiest expert's tokens over the mean, of the window.", layer
        )
        self._entropy = gauge(
            "moe_gate_entropy", "Gate's entropy, mean over the window's tokens, in nats.", layer
        )
        self._dropped_fraction = gauge(
            "moe_dropped_fraction",
            "Share of tokens times experts without room, over the window.",
            layer,
        )
        self._tokens = counter("moe_tokens_total", "Tokens that were routed.", layer)
        self._dropped = counter(
            "moe_dropped_total", "Tokens times experts that no room was left for.", layer
        )
        self._dispatch = histogram(
            "moe_dispatch_seconds", "Time of a layer's call, from its tokens to their output.",
            TOKEN_LATENCY_BUCKETS_S, layer,
        )  # fmt: skip
        self._batch_tokens = histogram("moe_batch_tokens", "Tokens of a batch.", _BATCH_BUCKETS)
        self._batch_calls = histogram(
            "moe_batch_calls", "Calls that shared a batch.", _BATCH_BUCKETS
        )
        self._shard_rows = counter("moe_shard_rows_total", "Rows a shard has computed.", shard)
        self._shard_failures = counter(
            "moe_shard_failures_total", "Calls to shards that failed.", (*shard, "reason")
        )
        self._hedges = counter("moe_hedged_total", "Calls repeated because one took too long.")
        self._version = gauge(
            "moe_placement_version", "Version of the placement of experts that holds."
        )
        self._moves = counter("moe_expert_moves_total", "Experts taken up or given up.")
        self._new_tokens: Counter[int] = Counter()  # since the last flush, by layer
        self._new_dropped: Counter[int] = Counter()
        self._new_rows: Counter[str] = Counter()  # by shard

    def looks_after(self, shards: Iterable[str]) -> None:
        """Tells at zero of what these may come to: a rate knows no first value."""
        for shard in shards:
            self._shard_rows.inc(0, shard=shard)
            for error in _SHARD_ERRORS:
                self._shard_failures.inc(0, shard=shard, reason=ERROR_TABLE[error].reason)

    def computed(self, shard: str, num_rows: int) -> None:
        """A shard has answered."""
        self._new_rows[shard] += num_rows

    def failed(self, shard: str, reason: str) -> None:
        """A call to a shard has failed."""
        self._shard_failures.inc(shard=shard, reason=reason)

    def hedged(self) -> None:
        """Another replica is asked for what took too long."""
        self._hedges.inc()

    def batch(self, layer: int, num_calls: int, num_tokens: int, num_dropped: int) -> None:
        """A batch has been routed; its experts are yet to be asked."""
        self._new_tokens[layer] += num_tokens
        self._new_dropped[layer] += num_dropped
        self._batch_tokens.observe(num_tokens)
        self._batch_calls.observe(num_calls)

    def dispatched(self, layer: int, seconds: float) -> None:
        """A call has its output."""
        self._dispatch.observe(seconds, layer=str(layer))

    def placed(self, version: int, num_moves: int) -> None:
        """Another placement holds."""
        self._version.set(version)
        self._moves.inc(num_moves)

    def flush(self, layers: tuple[int, ...], load: WindowLoad) -> None:
        """Now and then: the gauges that look back, and the counters of every layer and shard.

        Those count many thousand times a second; an exporter is not told of each.
        """
        entropies = load.mean_entropies()
        for row, layer in enumerate(layers):
            label = str(layer)
            chosen = int(load.tokens[row].sum())
            self._imbalance.set(max_over_mean(load.tokens[row].astype(float)), layer=label)
            self._entropy.set(float(entropies[row]), layer=label)
            dropped = float(load.num_dropped[row])
            self._dropped_fraction.set(dropped / chosen if chosen else 0.0, layer=label)
            self._tokens.inc(self._new_tokens.pop(layer, 0), layer=label)
            self._dropped.inc(self._new_dropped.pop(layer, 0), layer=label)
        for shard in list(self._new_rows):
            self._shard_rows.inc(self._new_rows.pop(shard), shard=shard)
