"""Queries checked and made one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.retrieval.types import CollectionConfig, Metric, Query, SearchMode, Vectors
from services.runtime.errors import InvalidRequest

__all__ = ["check_query", "query_matrix"]

# A vector this far from length 1, relatively, is brought to it.
_UNIT_LENGTH = 1e-5


def check_query(query: Query, mode: SearchMode, config: CollectionConfig) -> None:
    """Raises InvalidRequest: the query lacks what the mode needs, or its vector does not fit."""
    if query.vector is None and mode is not SearchMode.SPARSE:
        raise InvalidRequest(f"a {mode} search needs a vector", field="vector")
    if query.text is None and mode is not SearchMode.DENSE:
        raise InvalidRequest(f"a {mode} search needs a text", field="text")
    if query.vector is not None:
        _check_vector(query.vector, config)


def query_matrix(queries: Sequence[Query], config: CollectionConfig) -> Vectors | None:
    """[num_queries, dimensions], of length 1 for cosine; None: some query has no vector."""
    vectors = [query.vector for query in queries if query.vector is not None]
    if not vectors or len(vectors) < len(queries):
        return None
    matrix = np.array(vectors, dtype=np.float32)
    if config.metric is Metric.COSINE:
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        other = (np.abs(lengths - 1) > _UNIT_LENGTH) & (lengths > 0)
        matrix = np.divide(matrix, lengths, out=matrix, where=other)
    return matrix


def _check_vector(vector: Vectors, config: CollectionConfig) -> None:
    if vector.shape != (config.dimensions,):
        raise InvalidRequest(
            f"the vector has the shape {vector.shape}, the collection has "
            f"{config.dimensions} dimensions",
            field="vector",
        )
    if not np.isfinite(vector).all():
        raise InvalidRequest("the vector has a component that is no finite number", field="vector")
