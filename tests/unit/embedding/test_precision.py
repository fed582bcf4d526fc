"""bfloat16 is chosen where it is faster and changes nothing."""

from __future__ import annotations

import time

import numpy as np
import pytest

from services.embedding.precision import Comparison, compare

EXACT = np.eye(3, dtype=np.float32)


def sleeping(seconds: float, vectors: np.ndarray) -> np.ndarray:
    time.sleep(seconds)
    return vectors


def test_the_faster_of_two_equals_is_found() -> None:
    found = compare(lambda: sleeping(0.02, EXACT), lambda: sleeping(0.001, EXACT * 2))
    assert found.cosine == pytest.approx(1.0)
    assert found.speedup > 1
    assert found.is_better


def test_one_changed_vector_is_enough_to_refuse() -> None:
    changed = EXACT.copy()
    changed[2] = (0.0, 0.1, 1.0)
    found = compare(lambda: sleeping(0.02, EXACT), lambda: changed)
    assert found.cosine < 0.998
    assert not found.keeps_the_vectors
    assert not found.is_better


def test_slower_is_not_better() -> None:
    assert not Comparison(cosine=1.0, speedup=0.9).is_better
