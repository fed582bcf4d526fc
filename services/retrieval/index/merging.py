"""When segments are merged, and a merge under way.

Knows nothing of threads: `Merge.run` may be called in any.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Merge", "SegmentPolicy"]


@dataclass(frozen=True, slots=True)
class SegmentPolicy:
    """How an index is cut into segments and searched."""

    inline_rows: int = 4096  # up to so many rows `apply` merges small segments itself
    fanout: int = 4  # so many segments of about one size are merged into one
    max_dead_fraction: float = 0.3  # a segment with more removed rows is rewritten
    flat_rows: int = 200_000  # AUTO: segments of more rows get HNSW
    max_segment_rows: int = 2_000_000  # larger ones are merged by a rebuild alone
    num_threads: int | None = None  # of FAISS; None: as it chooses
    use_gpu: bool = False  # flat segments are searched on the GPU; needs a FAISS built for it


class Merge:
    """Some segments on their way to become one. `run` works in any thread."""

    def run(self) -> None:
        raise NotImplementedError
