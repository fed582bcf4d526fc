"""Vectors that clients bring: checked, and made of length 1 where the metric is cosine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from services.retrieval.types import Metric, Vectors
from services.runtime.errors import InvalidRequest

__all__ = ["checked_vector", "for_metric"]

# The product of two longer ones would leave float32.
_MAX_LENGTH = 1e18


def checked_vector(
    vector: npt.NDArray[np.float32], dimensions: int, metric: Metric, field: str
) -> Vectors:
    """The vector `[dimensions]` as it is compared. Raises `InvalidRequest` naming `field`."""
    if vector.shape != (dimensions,):
        raise InvalidRequest(
            f"{field}: expected {dimensions} numbers, as the collection's vectors have, "
            f"got {vector.size}",
            field=field,
        )
    wide = vector.astype(np.float64)  # squares of float32 numbers stay finite
    length = math.sqrt(wide.dot(wide))
    if not length <= _MAX_LENGTH:  # NaN compares false
        raise InvalidRequest(
            f"{field}: expected finite numbers, and a length of at most {_MAX_LENGTH:g}",
            field=field,
        )
    if metric is not Metric.COSINE:
        return vector
    if length == 0.0:
        raise InvalidRequest(f"{field}: a vector of zeros has no direction", field=field)
    return (wide / length).astype(np.float32)


def for_metric(vectors: Vectors, metric: Metric) -> Vectors:
    """`[n, dimensions]`: rows of length 1 where the metric is cosine; rows of zeros stay."""
    if metric is not Metric.COSINE:
        return vectors
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float32)
    lengths[lengths == 0] = 1
    return vectors / lengths[:, np.newaxis]
