"""Flat segments on a GPU, where FAISS is built for one (`faiss-gpu-cu12`) and the policy says so.

The vectors are kept in both memories: the GPU takes neither filters nor removed rows, so searches
with those run on the CPU, as does everything else.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from services.retrieval.types import Vectors

__all__ = ["GpuFlat", "gpu_available"]


def gpu_available() -> bool:
    return hasattr(faiss, "StandardGpuResources") and int(faiss.get_num_gpus()) > 0


class GpuFlat:
    """The vectors `[num_rows, width]` on the first GPU, searched exactly by inner product."""

    max_fetched = 2048  # FAISS's limit on a GPU

    def __init__(self, vectors: Vectors) -> None:
        self._resources = faiss.StandardGpuResources()
        self._index: Any = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1])
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Scores and rows `[num_queries, k]`, best first."""
        scores, rows = self._index.search(queries, k)
        return scores, rows
