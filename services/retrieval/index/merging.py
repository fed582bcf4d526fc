"""When segments are merged, and how: geometrically, so that a row is copied O(log n) times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SegmentPolicy", "choose", "choose_inline"]


@dataclass(frozen=True, slots=True)
class SegmentPolicy:
    """How an index is cut into segments and searched."""

    inline_rows: int = 4096  # `apply` itself merges segments up to so many rows in all
    fanout: int = 4  # so many segments of about one size become one
    max_dead_share: float = 0.3  # a segment with more of its rows removed is rewritten
    max_segment_rows: int = 2_000_000  # larger ones are merged by a rebuild alone
    flat_rows: int = 200_000  # AUTO: segments of more rows get HNSW
    min_ann_rows: int = 10_000  # smaller segments are flat whatever the config
    # A search that a filter leaves so few rows of an ANN index is exact: the index would miss many.
    exact_rows: int = 10_000
    exact_fraction: float = 0.1
    num_threads: int | None = None  # of FAISS per search; None: as OpenMP has it
    use_gpu: bool = False
    min_gpu_rows: int = 10_000


@dataclass(frozen=True, slots=True)
class Size:
    """Of a segment: all rows and those not removed."""

    rows: int
    living: int


def choose_inline(sizes: Sequence[int], new_rows: int, policy: SegmentPolicy) -> list[int]:
    """The segments, by position, that a batch of new rows is merged with at once.

    The smallest first, while they are no larger than what is merged so far.
    """
    chosen: list[int] = []
    total = new_rows
    for position in sorted(range(len(sizes)), key=sizes.__getitem__):
        size = sizes[position]
        if size > total or total + size > policy.inline_rows:
            break
        chosen.append(position)
        total += size
    return chosen


def choose(sizes: Sequence[Size], policy: SegmentPolicy) -> list[int]:
    """The segments, by position, that should become one now; empty: none."""
    tiers: dict[int, list[int]] = {}
    for position, size in enumerate(sizes):
        # apply merges those that are smaller
        if policy.inline_rows < size.living * 2 <= policy.max_segment_rows:
            tiers.setdefault(_tier(size.living, policy), []).append(position)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= policy.fanout:
            return _up_to(tiers[tier], sizes, policy.max_segment_rows)
    decayed = (
        position
        for position, size in enumerate(sizes)
        if size.rows - size.living > policy.max_dead_share * size.rows
    )
    return list(decayed)[:1]


def _tier(rows: int, policy: SegmentPolicy) -> int:
    """All that apply merges itself is tier 0; from there each is `fanout` times the one before."""
    tier = 0
    while rows > policy.inline_rows * policy.fanout**tier:
        tier += 1
    return tier


def _up_to(positions: list[int], sizes: Sequence[Size], max_rows: int) -> list[int]:
    """The smallest of them that stay within the limit together."""
    chosen: list[int] = []
    total = 0
    for position in sorted(positions, key=lambda position: sizes[position].living):
        total += sizes[position].living
        if total > max_rows and len(chosen) > 1:
            break
        chosen.append(position)
    return chosen
