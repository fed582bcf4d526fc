"""In which precision a model computes: bfloat16 where this machine is faster with it and the
vectors stay the same, float32 elsewhere. Found out at load, on this machine, with these weights.

Knows nothing of texts: whoever asks brings two ways to embed the same inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_COSINE", "Comparison", "compare"]

Vectors = npt.NDArray[np.float32]

# Below this a vector in bfloat16 does not count as the float32 one, unless a model asks for more.
MIN_COSINE = 0.998
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """bfloat16 beside float32 on the same inputs."""

    cosine: float  # the least of them
    speedup: float  # float32's time over bfloat16's
    min_cosine: float = MIN_COSINE

    @property
    def keeps_the_vectors(self) -> bool:
        return self.cosine >= self.min_cosine

    @property
    def is_better(self) -> bool:
        """Faster, with the same vectors."""
        return self.keeps_the_vectors and self.speedup > 1.0


def compare(
    float32: Callable[[], Vectors],
    bfloat16: Callable[[], Vectors],
    min_cosine: float = MIN_COSINE,
) -> Comparison:
    """Runs both in turn, the first time to warm up; each embeds the same inputs."""
    expected, got = float32(), bfloat16()
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    cosines = np.sum(expected * got, axis=1) / np.maximum(norms, 1e-12)
    best = {float32: float("inf"), bfloat16: float("inf")}
    for _ in range(_ROUNDS):
        for side in (float32, bfloat16):
            start = time.perf_counter()
            side()
            best[side] = min(best[side], time.perf_counter() - start)
    return Comparison(float(cosines.min()), best[float32] / best[bfloat16], min_cosine)
