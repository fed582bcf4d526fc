"""Answers of the embedding service."""

from __future__ import annotations

from orrery.parsing.common import name_of, same_fields, timing_of, usage_of
from orrery.requests.embedding import RERANK_METHODS
from orrery.results import (
    Embedding,
    EmbeddingLoad,
    EmbeddingModelInfo,
    EmbedResult,
    RerankedPassage,
    RerankResult,
)
from orrery.v1 import embedding_pb2 as pb

__all__ = ["parse_embed", "parse_embedding_load", "parse_embedding_model", "parse_rerank"]


def parse_embed(response: pb.EmbedTextResponse) -> EmbedResult:
    """The vectors of all inputs."""
    return same_fields(
        EmbedResult,
        response,
        embeddings=tuple(
            same_fields(Embedding, each, values=tuple(each.values)) for each in response.embeddings
        ),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_rerank(response: pb.RerankResponse) -> RerankResult:
    """Passages by their relevance."""
    return same_fields(
        RerankResult,
        response,
        results=tuple(RerankedPassage(each.index, each.score) for each in response.results),
        method=name_of(RERANK_METHODS, response.method),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_embedding_model(response: pb.GetEmbeddingModelResponse) -> EmbeddingModelInfo:
    """What an application embeds with."""
    return same_fields(EmbeddingModelInfo, response, aliases=tuple(response.aliases))


def parse_embedding_load(response: pb.EmbeddingServiceGetLoadResponse) -> EmbeddingLoad:
    """What the service is doing."""
    return same_fields(EmbeddingLoad, response)
