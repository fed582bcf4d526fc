"""Answers of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable

from orrery.parsing.common import name_of, same_fields, timing_of, usage_of
from orrery.requests.embedding import RERANK_METHODS
from orrery.results import (
    Classification,
    ClassifyResult,
    Embedding,
    EmbeddingLoad,
    EmbeddingModelInfo,
    EmbedResult,
    LabelScore,
    RerankedPassage,
    RerankResult,
    SimilarityResult,
    Usage,
)
from orrery.v1 import embedding_pb2 as pb

__all__ = [
    "parse_classify",
    "parse_embed",
    "parse_embed_images",
    "parse_embedding_load",
    "parse_embedding_model",
    "parse_rerank",
    "parse_similarity",
]

_MODALITIES = {"text": pb.MODALITY_TEXT, "image": pb.MODALITY_IMAGE}


def parse_embed(response: pb.EmbedTextResponse) -> EmbedResult:
    """The vectors of all inputs."""
    return same_fields(
        EmbedResult,
        response,
        embeddings=_embeddings(response.embeddings),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_embed_images(response: pb.EmbedImageResponse) -> EmbedResult:
    """The vectors of all pictures."""
    return same_fields(
        EmbedResult,
        response,
        embeddings=_embeddings(response.embeddings),
        usage=Usage(),
        timing=timing_of(response.timing),
    )


def parse_classify(response: pb.ClassifyResponse) -> ClassifyResult:
    """The labels of all pictures."""
    return same_fields(
        ClassifyResult,
        response,
        results=tuple(
            Classification(tuple(same_fields(LabelScore, score) for score in each.scores))
            for each in response.results
        ),
        usage=usage_of(response.usage),
        timing=timing_of(response.timing),
    )


def parse_similarity(response: pb.SimilarityResponse) -> SimilarityResult:
    """Cosines between two lists."""
    return same_fields(
        SimilarityResult,
        response,
        rows=tuple(tuple(row.cosines) for row in response.rows),
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
    modalities = response.modalities or (pb.MODALITY_TEXT,)
    return same_fields(
        EmbeddingModelInfo,
        response,
        aliases=tuple(response.aliases),
        modalities=tuple(name_of(_MODALITIES, each) for each in modalities),
        label_templates=tuple(response.label_templates),
    )


def parse_embedding_load(response: pb.EmbeddingServiceGetLoadResponse) -> EmbeddingLoad:
    """What the service is doing."""
    return same_fields(EmbeddingLoad, response)


def _embeddings(messages: Iterable[pb.Embedding]) -> tuple[Embedding, ...]:
    return tuple(same_fields(Embedding, each, values=tuple(each.values)) for each in messages)
