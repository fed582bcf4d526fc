"""Vectors and rankings as JSON, in the shapes of OpenAI and of Cohere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.gateway.embedding import Embedded

__all__ = ["embedding_document", "rerank_document"]

_METHODS = MappingProxyType(
    {pb.RERANK_METHOD_CROSS_ENCODER: "cross_encoder", pb.RERANK_METHOD_BI_ENCODER: "bi_encoder"}
)


def embedding_document(
    embedded: Embedded, *, as_base64: bool, mark_truncated: bool
) -> dict[str, Any]:
    """One vector for each input."""
    return {
        "object": "list",
        "model": embedded.model,
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _vector(embedding.values, as_base64),
                **({"truncated": embedding.truncated} if mark_truncated else {}),
            }
            for index, embedding in enumerate(embedded.embeddings)
        ],
        "usage": _usage(embedded.usage),
    }


def rerank_document(response: pb.RerankResponse, documents: Sequence[str] | None) -> dict[str, Any]:
    """The ranking, best first; with the `documents`, unless there are none to return."""
    results = []
    for ranked in response.results:
        result: dict[str, Any] = {
            "index": ranked.index,
            "relevance_score": np.float32(ranked.score),
        }
        if documents is not None:
            result["document"] = {"text": documents[ranked.index]}
        results.append(result)
    return {
        "id": response.request_id,
        "object": "list",
        "model": response.model,
        "method": _METHODS[response.method],
        "results": results,
        "usage": _usage(response.usage),
    }


def _vector(values: Sequence[float], as_base64: bool) -> Any:
    vector = np.array(values, np.dtype("<f4"))
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector


def _usage(usage: common_pb2.Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
