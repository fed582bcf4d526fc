"""`EmbeddingService` over the service's work: protobuf in, protobuf out.

The same servicer runs under a plain `grpc.aio` server and inside Ray Serve. Knows nothing of Ray.
A call that is cancelled takes back the inputs that no batch has begun with.
"""

from __future__ import annotations

import os
import time

import numpy as np

from orrery.v1 import embedding_pb2 as pb
from services.embedding import messages
from services.embedding.config import EmbeddingConfig
from services.embedding.encoder import Vectors, unit_length
from services.embedding.service import EmbeddingService
from services.embedding.vectors import Embedded
from services.runtime.errors import InvalidRequest, ModelNotFound
from services.runtime.offload import offload_if_large
from services.runtime.process import resident_bytes
from services.runtime.rpc import Call, RpcPolicy, unary

__all__ = ["EmbeddingServicer"]


class EmbeddingServicer:
    """The RPCs of one application: one embedding model, and perhaps a cross-encoder."""

    def __init__(self, config: EmbeddingConfig, service: EmbeddingService, rpc: RpcPolicy) -> None:
        self._config = config
        self._service = service
        self._rpc = rpc
        self._created_s = int(time.time())

    @property
    def rpc(self) -> RpcPolicy:
        """What every call goes through."""
        return self._rpc

    async def close(self) -> None:
        """Drains: refuses new calls, lets running ones finish in time."""
        await self._rpc.lifecycle.drain(self._config.drain_timeout_s)
        await self._service.close()

    @unary(pb.EmbedTextResponse)
    async def EmbedText(self, request: pb.EmbedTextRequest, call: Call) -> pb.EmbedTextResponse:
        """One vector for each input, in the order of the inputs."""
        self._check_model(request.model)
        self._check_dimensions(request)
        purpose = messages.purpose(request.purpose)
        inputs = messages.embedding_inputs(request.inputs)
        embedded = await self._service.embed(
            inputs, purpose, self._deadline_s(call), truncate=request.truncate
        )
        return pb.EmbedTextResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            embeddings=messages.embeddings(embedded, _vectors(embedded, request)),
            usage=messages.usage(embedded.cost),
            timing=messages.timing(embedded.cost, call.total_ns),
        )

    @unary(pb.EmbedImageResponse)
    async def EmbedImage(self, request: pb.EmbedImageRequest, call: Call) -> pb.EmbedImageResponse:
        """One vector for each picture, in the order of the pictures."""
        self._check_model(request.model)
        self._check_dimensions(request)
        pictures = messages.pictures(request.images, "images")
        embedded = await self._service.embed_pictures(pictures, self._deadline_s(call))
        return pb.EmbedImageResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            embeddings=messages.embeddings(embedded, _vectors(embedded, request)),
            timing=messages.timing(embedded.cost, call.total_ns),
        )

    @unary(pb.ClassifyResponse)
    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse:
        """How well each label fits each picture."""
        self._check_model(request.model)
        _check_top_n(request)
        labels = list(request.labels)
        classified = await self._service.cross_modal.classify(
            messages.pictures(request.images, "images"),
            labels,
            list(request.templates),
            request.top_n or len(labels),
            self._deadline_s(call),
        )
        best = classified.best
        results = await offload_if_large(
            best.indices.size, lambda: messages.classifications(best, labels)
        )
        return pb.ClassifyResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            results=results,
            usage=messages.usage(classified.cost),
            timing=messages.timing(classified.cost, call.total_ns),
        )

    @unary(pb.SimilarityResponse)
    async def Similarity(self, request: pb.SimilarityRequest, call: Call) -> pb.SimilarityResponse:
        """Cosines between two lists of texts and pictures."""
        self._check_model(request.model)
        compared = await self._service.cross_modal.similarity(
            messages.similarity_inputs(request.left, "left"),
            messages.similarity_inputs(request.right, "right"),
            self._deadline_s(call),
        )
        return pb.SimilarityResponse(
            request_id=call.request_id,
            model=self._config.model_name,
            rows=messages.similarity_rows(compared.cosines),
            usage=messages.usage(compared.cost),
            timing=messages.timing(compared.cost, call.total_ns),
        )

    @unary(pb.RerankResponse)
    async def Rerank(self, request: pb.RerankRequest, call: Call) -> pb.RerankResponse:
        """Orders passages by their relevance to a query."""
        method = self._rerank_method(request)
        by_cross_encoder = method == pb.RERANK_METHOD_CROSS_ENCODER
        _check_top_n(request)
        score = (
            self._service.score_by_cross_encoder
            if by_cross_encoder
            else self._service.score_by_vectors
        )
        scored = await score(request.query, list(request.passages), self._deadline_s(call))
        reranker = self._config.reranker
        return pb.RerankResponse(
            request_id=call.request_id,
            model=reranker.name if by_cross_encoder and reranker else self._config.model_name,
            results=messages.ranking(scored.scores, request.top_n or len(scored.scores)),
            method=method,
            usage=messages.usage(scored.cost),
            timing=messages.timing(scored.cost, call.total_ns, rerank=True),
        )

    @unary(pb.GetEmbeddingModelResponse)
    async def GetEmbeddingModel(
        self, request: pb.GetEmbeddingModelRequest, _call: Call
    ) -> pb.GetEmbeddingModelResponse:
        """What is served, and within which limits."""
        self._check_model(request.model)
        config, encoder = self._config, self._service.encoder
        pictures = self._service.pictures_config
        of_pictures = {} if pictures is None else messages.picture_limits(pictures)
        return pb.GetEmbeddingModelResponse(
            model=config.model_name,
            dimensions=encoder.dimensions,
            max_input_tokens=encoder.tokenizer.max_input_tokens,
            max_batch_inputs=self._service.max_inputs,
            max_input_bytes=config.limits.max_input_bytes,
            normalized=encoder.normalized,
            dtype=encoder.dtype,
            weight_hash=encoder.weight_hash,
            aliases=config.aliases,
            reranker="" if config.reranker is None else config.reranker.name,
            created_s=self._created_s,
            modalities=[pb.MODALITY_TEXT, *([] if pictures is None else [pb.MODALITY_IMAGE])],
            **of_pictures,
        )

    @unary(pb.EmbeddingServiceGetLoadResponse)
    async def GetLoad(
        self, _request: pb.EmbeddingServiceGetLoadRequest, _call: Call
    ) -> pb.EmbeddingServiceGetLoadResponse:
        """What the service is doing right now."""
        load = self._service.load()
        return pb.EmbeddingServiceGetLoadResponse(
            num_running=self._rpc.lifecycle.num_in_flight - 1,
            num_waiting_inputs=load.num_waiting_inputs,
            num_running_inputs=load.num_running_inputs,
            cache_hits=load.cache_hits,
            cache_misses=load.cache_misses,
            cache_available=load.cache_available,
            resident_bytes=resident_bytes(),
            process_id=os.getpid(),
            num_inputs_done=load.num_inputs_done,
            num_tokens_done=load.num_tokens_done,
        )

    def _check_model(self, model: str) -> None:
        if not self._config.serves(model):
            raise ModelNotFound(
                f"model: this application serves {self._config.model_name!r}, not {model[:128]!r}",
                field="model",
            )

    def _check_dimensions(self, request: pb.EmbedTextRequest | pb.EmbedImageRequest) -> None:
        dimensions = self._service.encoder.dimensions
        if request.HasField("dimensions") and not 1 <= request.dimensions <= dimensions:
            raise InvalidRequest(
                f"dimensions: expected 1 to {dimensions}, got {request.dimensions}",
                field="dimensions",
            )

    def _rerank_method(self, request: pb.RerankRequest) -> pb.RerankMethod:
        """The method asked for, else the best there is. The cross-encoder's name asks for it."""
        reranker = self._config.reranker
        by_name = reranker is not None and request.model == reranker.name
        if not by_name:
            self._check_model(request.model)
        method = request.method
        if method not in pb.RerankMethod.values():
            raise InvalidRequest("method: expected CROSS_ENCODER or BI_ENCODER", field="method")
        if method == pb.RERANK_METHOD_UNSPECIFIED:
            has_scorer = self._service.has_cross_encoder
            return pb.RERANK_METHOD_CROSS_ENCODER if has_scorer else pb.RERANK_METHOD_BI_ENCODER
        if by_name and method == pb.RERANK_METHOD_BI_ENCODER:
            raise InvalidRequest(
                f"method: {request.model!r} is a cross-encoder; expected CROSS_ENCODER",
                field="method",
            )
        return method

    def _deadline_s(self, call: Call) -> float:
        default_s = call.arrival_s + self._config.limits.default_timeout_s
        return default_s if call.deadline_s is None else call.deadline_s


def _vectors(embedded: Embedded, request: pb.EmbedTextRequest | pb.EmbedImageRequest) -> Vectors:
    """`[num_inputs, dimensions]`, as many dimensions as asked for."""
    vectors: Vectors = np.stack(embedded.vectors)
    if not request.HasField("dimensions") or request.dimensions == vectors.shape[1]:
        return vectors
    return unit_length(vectors[:, : request.dimensions])


def _check_top_n(request: pb.RerankRequest | pb.ClassifyRequest) -> None:
    if request.HasField("top_n") and request.top_n == 0:
        raise InvalidRequest("top_n: expected at least 1", field="top_n")
