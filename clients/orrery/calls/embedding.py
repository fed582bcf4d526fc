"""Calls of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable

from orrery.calls.common import CallOptions, call
from orrery.methods import EMBED_TEXT, GET_EMBEDDING_LOAD, GET_EMBEDDING_MODEL, RERANK
from orrery.parsing.embedding import (
    parse_embed,
    parse_embedding_load,
    parse_embedding_model,
    parse_rerank,
)
from orrery.requests.embedding import (
    EmbeddingInput,
    EmbeddingPurpose,
    RerankMethod,
    build_embed,
    build_rerank,
)
from orrery.results import EmbeddingLoad, EmbeddingModelInfo, EmbedResult, RerankResult
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import embedding_pb2 as pb

__all__ = ["EmbeddingCalls"]


class EmbeddingCalls:
    """`application` None = the one of the client's settings."""

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
