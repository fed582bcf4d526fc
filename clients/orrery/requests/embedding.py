"""Requests of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from orrery.requests.common import assign, choose
from orrery.v1 import embedding_pb2 as pb

__all__ = [
    "RERANK_METHODS",
    "EmbeddingInput",
    "EmbeddingPurpose",
    "RerankMethod",
    "build_embed",
    "build_rerank",
]

EmbeddingInput: TypeAlias = str | Iterable[int]
"""A text, or ids of the model's own vocabulary without special tokens."""

EmbeddingPurpose: TypeAlias = Literal["query", "passage"]
RerankMethod: TypeAlias = Literal["cross_encoder", "bi_encoder"]

_PURPOSES = {
    "query": pb.EMBEDDING_PURPOSE_QUERY,
    "passage": pb.EMBEDDING_PURPOSE_PASSAGE,
}
RERANK_METHODS = {
    "cross_encoder": pb.RERANK_METHOD_CROSS_ENCODER,
    "bi_encoder": pb.RERANK_METHOD_BI_ENCODER,
}


def build_embed(
    inputs: str | Iterable[EmbeddingInput],
    *,
    purpose: EmbeddingPurpose | None,
    dimensions: int | None,
    truncate: bool | None,
) -> pb.EmbedTextRequest:
    """An `EmbedText` request; one bare text is one input."""
    request = pb.EmbedTextRequest()
    for i, each in enumerate([inputs] if isinstance(inputs, str) else inputs):
        message, field = request.inputs.add(), f"inputs[{i}]"
        if isinstance(each, str):
            assign(message, "text", each, field)
        elif isinstance(each, Iterable) and not isinstance(each, bytes | bytearray):
            message.token_ids.SetInParent()
            assign(message.token_ids, "ids", list(each), field)
        else:
            raise TypeError(f"{field}: expected a text or token ids, got {type(each).__name__}")
    if purpose is not None:
        request.purpose = choose(_PURPOSES, purpose, "purpose")  # type: ignore[assignment]
    for name, value in (("dimensions", dimensions), ("truncate", truncate)):
        if value is not None:
            assign(request, name, value)
    return request


def build_rerank(
    query: str,
    passages: Iterable[str],
    *,
    top_n: int | None,
    method: RerankMethod | None,
) -> pb.RerankRequest:
    """A `Rerank` request."""
    if isinstance(passages, str):
        raise TypeError("passages: expected several texts, got one")
    request = pb.RerankRequest()
    assign(request, "query", query)
    assign(request, "passages", list(passages))
    if top_n is not None:
        assign(request, "top_n", top_n)
    if method is not None:
        request.method = choose(RERANK_METHODS, method, "method")  # type: ignore[assignment]
    return request
