"""How many tokens went where, over a sliding window of the recent past.

Seconds are gathered in a ring of slots, so memory is bounded whatever the traffic. Knows nothing
of calls or serving.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.moe.expert_key import ExpertKey

__all__ = ["LoadWindow", "WindowLoad"]

_NUM_SLOTS = 60

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class WindowLoad:
    """Sums over so many seconds; L layers, E experts, S shards, in the window's order."""

    window_s: float  # for which it was counted
    tokens: Counts  # [L, E]: tokens times experts, those dropped included
    num_tokens: Counts  # [L]
    entropy_sum: npt.NDArray[np.float64]  # [L], nats
    num_dropped: Counts  # [L]
    rows: Counts  # [S]: computed by the shards

    def mean_entropies(self) -> npt.NDArray[np.float64]:
        """[L], of the gate's distribution, over the tokens."""
        return self.entropy_sum / np.maximum(self.num_tokens, 1)

    def by_key(self, layers: Sequence[int]) -> dict[ExpertKey, float]:
        """The tokens of every expert."""
        return {
            ExpertKey(layer, expert): float(count)
            for layer, counts in zip(layers, self.tokens, strict=True)
            for expert, count in enumerate(counts)
        }


class LoadWindow:
    """`clock` counts seconds. Used from one thread."""

    def __init__(
        self,
        layers: Sequence[int],
        num_experts: int,
        shards: Sequence[str],
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows_of_layers = {layer: row for row, layer in enumerate(layers)}
        self._places_of_shards = {shard: place for place, shard in enumerate(shards)}
        self._window_s = window_s
        self._slot_s = window_s / _NUM_SLOTS
        self._clock = clock
        self._started_s = clock()
        num_layers = len(layers)
        # A slot more than the window has: the one that fills is not a whole one yet.
        self._slots = np.full(_NUM_SLOTS + 1, -1, dtype=np.int64)  # which of all time each holds
        self._tokens = np.zeros((_NUM_SLOTS + 1, num_layers, num_experts), dtype=np.int64)
        self._num_tokens = np.zeros((_NUM_SLOTS + 1, num_layers), dtype=np.int64)
        self._entropy = np.zeros((_NUM_SLOTS + 1, num_layers))
        self._dropped = np.zeros((_NUM_SLOTS + 1, num_layers), dtype=np.int64)
        self._rows = np.zeros((_NUM_SLOTS + 1, len(shards)), dtype=np.int64)

    def routed(
        self, layer: int, counts: Counts, entropy_sum: float, num_tokens: int, num_dropped: int
    ) -> None:
        """A batch of a layer: tokens of each expert [E], and the sum of their entropies."""
        slot, row = self._slot(), self._rows_of_layers[layer]
        self._tokens[slot, row] += counts
        self._num_tokens[slot, row] += num_tokens
        self._entropy[slot, row] += entropy_sum
        self._dropped[slot, row] += num_dropped

    def computed(self, shard: str, num_rows: int) -> None:
        """A shard has answered."""
        self._rows[self._slot(), self._places_of_shards[shard]] += num_rows

    def total(self, window_s: float | None = None) -> WindowLoad:
        """Over at least the last so many seconds, in whole slots and the one that fills; the whole
        window by default.
        """
        now = self._clock()
        wanted_s = self._window_s if window_s is None else min(window_s, self._window_s)
        first = max(0, self._number(now) - math.ceil(wanted_s / self._slot_s))
        recent = self._slots >= first
        return WindowLoad(
            window_s=now - self._started_s - first * self._slot_s,
            tokens=self._tokens[recent].sum(axis=0),
            num_tokens=self._num_tokens[recent].sum(axis=0),
            entropy_sum=self._entropy[recent].sum(axis=0),
            num_dropped=self._dropped[recent].sum(axis=0),
            rows=self._rows[recent].sum(axis=0),
        )

    def _number(self, now: float) -> int:
        return int((now - self._started_s) / self._slot_s)

    def _slot(self) -> int:
        """The slot of this moment, emptied where it held an older one."""
        number = self._number(self._clock())
        slot = number % len(self._slots)
        if self._slots[slot] != number:
            self._slots[slot] = number
            for sums in (self._tokens, self._num_tokens, self._entropy, self._dropped, self._rows):
                sums[slot] = 0
        return slot
