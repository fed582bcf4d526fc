"""Vectors of texts and pictures, and passages scored, asked of an embedding application.

`Embedder` is the seam; `PeerEmbedder` asks over gRPC. Knows nothing of documents and collections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

import numpy as np

from orrery.methods import EMBED_IMAGE, EMBED_TEXT, GET_EMBEDDING_MODEL, RERANK
from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.retrieval.types import Vectors
from services.runtime.errors import DeadlineExceeded, Internal, Overloaded
from services.runtime.peer import Caller, Peer
from services.runtime.pictures import PictureLimits
from services.runtime.run_all import run_all

__all__ = [
    "Embedded",
    "Embedder",
    "EmbeddingModel",
    "PeerEmbedder",
    "Purpose",
    "RerankBy",
    "Reranked",
]

_MODEL_TTL_S = 60.0
# Of the texts of one call: far below what a gRPC message may hold.
_CALL_BYTES = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0

T = TypeVar("T")


class Purpose(StrEnum):
    QUERY = "query"
    PASSAGE = "passage"


class RerankBy(StrEnum):
    CROSS_ENCODER = "cross_encoder"
    BI_ENCODER = "bi_encoder"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What an application embeds with."""

    name: str
    dimensions: int
    max_input_tokens: int
    max_batch_inputs: int
    reranker: str  # "" = no cross-encoder
    picture_limits: PictureLimits | None = None  # None: it embeds texts alone


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """`vectors` is `[num_texts, dimensions]`; `tokens` says how many were read of each text."""

    vectors: Vectors
    tokens: tuple[int, ...]
    num_truncated: int

    @property
    def num_tokens(self) -> int:
        """Of all texts."""
        return sum(self.tokens)


@dataclass(frozen=True, slots=True)
class Reranked:
    """One score for each passage, in the order of the passages."""

    scores: tuple[float, ...]
    num_tokens: int


class Embedder(Protocol):
    """Asks embedding applications by name. Every method raises `OrreryError`."""

    async def model(self, application: str, caller: Caller) -> EmbeddingModel: ...

    async def embed(
        self,
        application: str,
        texts: Sequence[str],
        purpose: Purpose,
        dimensions: int,
        caller: Caller,
    ) -> Embedded:
        """Texts longer than the model's context are cut, and counted."""
        ...

    async def embed_pictures(
        self,
        application: str,
        pictures: Sequence[bytes],
        dimensions: int,
        caller: Caller,
        *,
        patiently: bool,
    ) -> Vectors:
        """`[num_pictures, dimensions]`. `patiently`: wait where the model's queue is full."""
        ...

    async def rerank(
        self,
        application: str,
        query: str,
        passages: Sequence[str],
        by: RerankBy,
        caller: Caller,
    ) -> Reranked: ...


_PURPOSES = {
    Purpose.QUERY: pb.EMBEDDING_PURPOSE_QUERY,
    Purpose.PASSAGE: pb.EMBEDDING_PURPOSE_PASSAGE,
}
_METHODS = {
    RerankBy.CROSS_ENCODER: pb.RERANK_METHOD_CROSS_ENCODER,
    RerankBy.BI_ENCODER: pb.RERANK_METHOD_BI_ENCODER,
}


class PeerEmbedder:
    """An `Embedder` over gRPC.

    Passages go in calls of bounded size, so many at a time over all documents; a full queue there
    holds documents up instead of failing them. Queries pass them by and are told at once.
    """

    def __init__(self, peer: Peer, *, max_calls: int = 16, texts_per_call: int = 64) -> None:
        self._peer = peer
        self._slots = asyncio.Semaphore(max_calls)
        self._texts_per_call = texts_per_call
        self._models: dict[str, tuple[float, EmbeddingModel]] = {}

    async def model(self, application: str, caller: Caller) -> EmbeddingModel:
        known = self._models.get(application)
        if known is not None and time.monotonic() - known[0] < _MODEL_TTL_S:
            return known[1]
        request = pb.GetEmbeddingModelRequest()
        found = await self._peer.unary(application, GET_EMBEDDING_MODEL, request, caller)
        model = EmbeddingModel(
            name=found.model,
            dimensions=found.dimensions,
            max_input_tokens=found.max_input_tokens,
            max_batch_inputs=found.max_batch_inputs,
            reranker=found.reranker,
            picture_limits=_picture_limits(found),
        )
        self._models[application] = (time.monotonic(), model)
        return model

    async def embed(
        self,
        application: str,
        texts: Sequence[str],
        purpose: Purpose,
        dimensions: int,
        caller: Caller,
    ) -> Embedded:
        limit = min(self._texts_per_call, (await self.model(application, caller)).max_batch_inputs)

        async def part(some: Sequence[str]) -> Embedded:
            if purpose is Purpose.QUERY:
                return await self._call(application, some, purpose, dimensions, caller)
            async with self._slots:
                return await _patiently(
                    lambda: self._call(application, some, purpose, dimensions, caller), caller
                )

        if len(texts) == 1:
            return await part(texts)
        parts = await run_all(part(some) for some in _parts(texts, limit))
        return Embedded(
            vectors=np.concatenate([some.vectors for some in parts]),
            tokens=tuple(number for some in parts for number in some.tokens),
            num_truncated=sum(some.num_truncated for some in parts),
        )

    async def embed_pictures(
        self,
        application: str,
        pictures: Sequence[bytes],
        dimensions: int,
        caller: Caller,
        *,
        patiently: bool,
    ) -> Vectors:
        async def call() -> Vectors:
            request = pb.EmbedImageRequest(
                images=[common_pb2.ImageContent(data=picture) for picture in pictures],
                dimensions=dimensions,
            )
            response = await self._peer.unary(application, EMBED_IMAGE, request, caller)
            return _vectors(response.embeddings, len(pictures), dimensions)

        if not patiently:
            return await call()
        async with self._slots:
            return await _patiently(call, caller)

    async def rerank(
        self,
        application: str,
        query: str,
        passages: Sequence[str],
        by: RerankBy,
        caller: Caller,
    ) -> Reranked:
        async def part(some: Sequence[str]) -> Reranked:
            request = pb.RerankRequest(query=query, passages=some, method=_METHODS[by])
            response = await self._peer.unary(application, RERANK, request, caller)
            scores = {result.index: result.score for result in response.results}
            if len(scores) != len(some):
                raise Internal("the embedding service left out a passage")
            return Reranked(
                scores=tuple(scores[index] for index in range(len(some))),
                num_tokens=response.usage.prompt_tokens,
            )

        limit = (await self.model(application, caller)).max_batch_inputs
        parts = await run_all(part(some) for some in _parts(passages, limit))
        return Reranked(
            scores=tuple(score for some in parts for score in some.scores),
            num_tokens=sum(some.num_tokens for some in parts),
        )

    async def _call(
        self,
        application: str,
        texts: Sequence[str],
        purpose: Purpose,
        dimensions: int,
        caller: Caller,
    ) -> Embedded:
        request = pb.EmbedTextRequest(
            inputs=[pb.EmbeddingInput(text=text) for text in texts],
            purpose=_PURPOSES[purpose],
            dimensions=dimensions,
            truncate=True,
        )
        response = await self._peer.unary(application, EMBED_TEXT, request, caller)
        return Embedded(
            vectors=_vectors(response.embeddings, len(texts), dimensions),
            tokens=tuple(entry.num_tokens for entry in response.embeddings),
            num_truncated=sum(entry.truncated for entry in response.embeddings),
        )


async def _patiently(call: Callable[[], Awaitable[T]], caller: Caller) -> T:
    """Calls again while the service's queue is full, until the caller's time is up."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except Overloaded:
            if caller.left_s() <= pause_s:
                raise DeadlineExceeded(
                    "the embedding service was busy until the time was up", stage="embed"
                ) from None
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _vectors(embeddings: Sequence[pb.Embedding], num_inputs: int, dimensions: int) -> Vectors:
    vectors = np.array([entry.values for entry in embeddings], dtype=np.float32)
    if vectors.shape != (num_inputs, dimensions):
        raise Internal("the embedding service answered with vectors of another shape")
    return vectors


def _picture_limits(found: pb.GetEmbeddingModelResponse) -> PictureLimits | None:
    if pb.MODALITY_IMAGE not in found.modalities:
        return None
    return PictureLimits(max_bytes=found.max_image_bytes, max_pixels=found.max_image_pixels)


def _parts(texts: Sequence[str], limit: int) -> Iterator[Sequence[str]]:
    """Runs of at most `limit` texts and about `_CALL_BYTES` bytes."""
    start, size = 0, 0
    for index, text in enumerate(texts):
        num_bytes = len(text.encode())
        if index > start and (index - start == limit or size + num_bytes > _CALL_BYTES):
            yield texts[start:index]
            start, size = index, 0
        size += num_bytes
    if start < len(texts):
        yield texts[start:]
