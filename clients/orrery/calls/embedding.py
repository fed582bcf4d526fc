"""Calls of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable

from orrery.calls.common import CallOptions, after_reading, call
from orrery.methods import (
    CLASSIFY,
    EMBED_IMAGE,
    EMBED_TEXT,
    GET_EMBEDDING_LOAD,
    GET_EMBEDDING_MODEL,
    RERANK,
    SIMILARITY,
)
from orrery.parsing.embedding import (
    parse_classify,
    parse_embed,
    parse_embed_images,
    parse_embedding_load,
    parse_embedding_model,
    parse_rerank,
    parse_similarity,
)
from orrery.requests.embedding import (
    EmbeddingInput,
    EmbeddingPurpose,
    RerankMethod,
    SimilarityInput,
    build_classify,
    build_embed,
    build_embed_images,
    build_rerank,
    build_similarity,
)
from orrery.requests.pictures import ImageInput
from orrery.results import (
    ClassifyResult,
    EmbeddingLoad,
    EmbeddingModelInfo,
    EmbedResult,
    RerankResult,
    SimilarityResult,
)
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import embedding_pb2 as pb

__all__ = ["EmbeddingCalls"]


class EmbeddingCalls:
    """`application` None = the one of the client's settings: another for pictures."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings

    def embed(
        self,
        inputs: str | Iterable[EmbeddingInput],
        *,
        purpose: EmbeddingPurpose | None,
        dimensions: int | None,
        truncate: bool | None,
        application: str | None,
        options: CallOptions,
    ) -> Steps[EmbedResult]:
        """Vectors of texts."""
        request = build_embed(inputs, purpose=purpose, dimensions=dimensions, truncate=truncate)
        name = self._name(application)
        return call(self._settings, name, EMBED_TEXT, request, parse_embed, options)

    def rerank(
        self,
        query: str,
        passages: Iterable[str],
        *,
        top_n: int | None,
        method: RerankMethod | None,
        application: str | None,
        options: CallOptions,
    ) -> Steps[RerankResult]:
        """Passages by their relevance to a query."""
        request = build_rerank(query, passages, top_n=top_n, method=method)
        name = self._name(application)
        return call(self._settings, name, RERANK, request, parse_rerank, options)

    def embed_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        dimensions: int | None,
        application: str | None,
        options: CallOptions,
    ) -> Steps[EmbedResult]:
        """Vectors of pictures."""
        request, pictures = build_embed_images(images, dimensions=dimensions)
        name = self._clip_name(application)
        steps = call(self._settings, name, EMBED_IMAGE, request, parse_embed_images, options)
        return after_reading(pictures, steps)

    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Iterable[str],
        *,
        templates: str | Iterable[str] | None,
        top_n: int | None,
        application: str | None,
        options: CallOptions,
    ) -> Steps[ClassifyResult]:
        """Which labels fit pictures."""
        request, pictures = build_classify(images, labels, templates=templates, top_n=top_n)
        name = self._clip_name(application)
        steps = call(self._settings, name, CLASSIFY, request, parse_classify, options)
        return after_reading(pictures, steps)

    def similarity(
        self,
        left: SimilarityInput | Iterable[SimilarityInput],
        right: SimilarityInput | Iterable[SimilarityInput],
        *,
        application: str | None,
        options: CallOptions,
    ) -> Steps[SimilarityResult]:
        """Cosines between texts and pictures."""
        request, pictures = build_similarity(left, right)
        name = self._clip_name(application)
        steps = call(self._settings, name, SIMILARITY, request, parse_similarity, options)
        return after_reading(pictures, steps)

    def model(self, application: str | None, options: CallOptions) -> Steps[EmbeddingModelInfo]:
        """What an application embeds with."""
        name, request = self._name(application), pb.GetEmbeddingModelRequest()
        return call(
            self._settings, name, GET_EMBEDDING_MODEL, request, parse_embedding_model, options
        )

    def load(self, application: str | None, options: CallOptions) -> Steps[EmbeddingLoad]:
        """What an application is doing."""
        name, request = self._name(application), pb.EmbeddingServiceGetLoadRequest()
        return call(
            self._settings, name, GET_EMBEDDING_LOAD, request, parse_embedding_load, options
        )

    def _name(self, application: str | None) -> str:
        return self._settings.services.embedding if application is None else application

    def _clip_name(self, application: str | None) -> str:
        return self._settings.services.clip if application is None else application
