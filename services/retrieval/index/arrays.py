"""Named arrays as snapshots keep them: reading them back with their type and shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "read_array", "read_rows", "read_scalar"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


def read_array(
    arrays: Arrays, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """The array of that name. ValueError: missing, or of another type or shape (None = any)."""
    found = arrays.get(name)
    if found is None:
        raise ValueError(f"{name}: missing")
    if found.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: {found.dtype} instead of {np.dtype(dtype)}")
    fits = len(found.shape) == len(shape) and all(
        wanted is None or wanted == size for wanted, size in zip(shape, found.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: shape {found.shape} instead of {shape}")
    return np.ascontiguousarray(found)


def read_scalar(arrays: Arrays, name: str) -> int:
    """A whole number of 0 or more, kept as int64 [1]."""
    value = int(read_array(arrays, name, np.int64, (1,))[0])
    if value < 0:
        raise ValueError(f"{name}: {value} is negative")
    return value


def read_rows(
    arrays: Arrays, name: str, shape: tuple[int | None], below: int
) -> npt.NDArray[np.int32]:
    """Row numbers of a table of `below` rows, int32."""
    rows = read_array(arrays, name, np.int32, shape)
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= below):
        raise ValueError(f"{name}: row numbers outside 0..{below - 1}")
    return rows
