"""The inner loop of BM25: a term's postings added to the scores of their rows.

Compiled by numba, as numpy needs six passes for it and holds the interpreter meanwhile. In numpy:

    scores[rows] += weight * (counts / (counts + norms[rows]))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba import njit

__all__ = ["accumulator"]

_COUNTS = ("uint8", "uint16", "uint32")


@cache
def accumulator() -> Callable[..., None]:
    """`f(scores, rows, counts, norms, weight)`, float32 but for int32 rows and unsigned counts.

    Compiled at the first call in a process, or loaded as compiled on this machine before.
    """
    try:
        compiled = njit(nogil=True, cache=True, error_model="numpy")(_accumulate)
        _compile(compiled)
    except RuntimeError:  # no folder to keep the code in can be written
        compiled = njit(nogil=True, error_model="numpy")(_accumulate)
        _compile(compiled)
    return compiled  # type: ignore[no-any-return]


def _accumulate(scores: Any, rows: Any, counts: Any, norms: Any, weight: Any) -> None:
    for at in range(len(rows)):
        row = rows[at]
        count = np.float32(counts[at])
        scores[row] += weight * (count / (count + norms[row]))


def _compile(compiled: Callable[..., None]) -> None:
    """For all types of counts and rows, by using it once with each; a snapshot's are read-only."""
    for name, writeable in product(_COUNTS, (True, False)):
        rows, counts = np.zeros(1, np.int32), np.ones(1, name)
        rows.flags.writeable = writeable
        compiled(np.zeros(1, np.float32), rows, counts, np.ones(1, np.float32), np.float32(1))
