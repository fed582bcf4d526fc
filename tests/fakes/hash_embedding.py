"""An embedding service that needs no model: a text's vector is made of the hashes of its words.

Deterministic and cheap; texts that share words are similar. A picture's vector is that of the word
for its colour. It answers as the real one does, and can be told to be slow, to be away, or to be
busy.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from orrery.v1 import common_pb2, embedding_pb2_grpc
from orrery.v1 import embedding_pb2 as pb
from services.runtime.errors import InvalidRequest, OrreryError
from services.runtime.pictures import PictureLimits, decode_picture
from services.runtime.rpc import Call, RpcPolicy, unary

DIMENSIONS = 64
MAX_INPUT_TOKENS = 256
PICTURE_LIMITS = PictureLimits(max_bytes=1 << 20, max_pixels=1 << 20)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
_WORD = re.compile(r"\w+")


def hash_vector(text: str, dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """The vector of a text, of length 1."""
    vector = np.zeros(dimensions, np.float32)
    for word in _WORD.findall(text.lower())[:MAX_INPUT_TOKENS]:
        generator = np.random.default_rng(zlib.crc32(word.encode()))
        vector += generator.standard_normal(dimensions, np.float32)
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        vector[0] = length = 1.0
    return vector / np.float32(length)


def picture_vector(data: bytes, field: str, dimensions: int) -> npt.NDArray[np.float32]:
    """The vector of the colour that is nearest to the picture's mean."""
    mean = np.asarray(decode_picture(data, PICTURE_LIMITS, field)).mean(axis=(0, 1))
    nearest = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
    return hash_vector(nearest, dimensions)


class HashEmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """`EmbeddingService` by hashes. `failure` is raised instead of answering, `delay_s` awaited."""

    def __init__(self, dimensions: int = DIMENSIONS, *, embeds_pictures: bool = False) -> None:
        self.dimensions = dimensions
        self.embeds_pictures = embeds_pictures
        self.num_pictures = 0  # embedded so far
        self.delay_s = 0.0
        self.failure: OrreryError | None = None
        self.num_texts = 0  # embedded so far
        self.rerank_bytes: list[int] = []  # of the passages of each call so far
        self.num_running = 0
        self._rpc = RpcPolicy()

    @property
    def rpc(self) -> RpcPolicy:
        return self._rpc

    @unary(pb.EmbedTextResponse)
    async def EmbedText(self, request: pb.EmbedTextRequest, call: Call) -> pb.EmbedTextResponse:
        await self._work()
        texts = [entry.text for entry in request.inputs]
        dimensions = request.dimensions if request.HasField("dimensions") else self.dimensions
        self.num_texts += len(texts)
        lengths = [len(_WORD.findall(text)) + 2 for text in texts]
        if not request.truncate and max(lengths) > MAX_INPUT_TOKENS:
            raise InvalidRequest("inputs: too long", field="inputs")
        return pb.EmbedTextResponse(
            request_id=call.request_id,
            model="hash",
            embeddings=[
                pb.Embedding(
                    values=hash_vector(text, dimensions),
                    num_tokens=min(length, MAX_INPUT_TOKENS),
                    truncated=length > MAX_INPUT_TOKENS,
                )
                for text, length in zip(texts, lengths, strict=True)
            ],
            usage=_usage(lengths),
            timing=common_pb2.Timing(total_ns=call.total_ns),
        )

    @unary(pb.EmbedImageResponse)
    async def EmbedImage(self, request: pb.EmbedImageRequest, call: Call) -> pb.EmbedImageResponse:
        await self._work()
        if not self.embeds_pictures:
            raise InvalidRequest("images: this model embeds texts alone", field="images")
        dimensions = request.dimensions if request.HasField("dimensions") else self.dimensions
        self.num_pictures += len(request.images)
        return pb.EmbedImageResponse(
            request_id=call.request_id,
            model="hash",
            embeddings=[
                pb.Embedding(values=picture_vector(image.data, f"images[{index}].data", dimensions))
                for index, image in enumerate(request.images)
            ],
        )

    @unary(pb.RerankResponse)
    async def Rerank(self, request: pb.RerankRequest, call: Call) -> pb.RerankResponse:
        await self._work()
        if request.method == pb.RERANK_METHOD_CROSS_ENCODER:
            raise InvalidRequest("method: no cross-encoder is configured", field="method")
        self.rerank_bytes.append(sum(len(text.encode()) for text in request.passages))
        for index, text in enumerate(request.passages):
            if not text.strip():
                field = f"passages[{index}]"
                raise InvalidRequest(f"{field}: expected a text that is not empty", field=field)
        query = hash_vector(request.query, self.dimensions)
        scores = [float(hash_vector(text, self.dimensions) @ query) for text in request.passages]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return pb.RerankResponse(
            request_id=call.request_id,
            model="hash",
            results=[pb.RerankResult(index=index, score=scores[index]) for index in order],
            method=pb.RERANK_METHOD_BI_ENCODER,
            usage=_usage(len(_WORD.findall(text)) for text in request.passages),
        )

    @unary(pb.GetEmbeddingModelResponse)
    async def GetEmbeddingModel(
        self, request: pb.GetEmbeddingModelRequest, call: Call
    ) -> pb.GetEmbeddingModelResponse:
        return pb.GetEmbeddingModelResponse(
            model="hash",
            dimensions=self.dimensions,
            max_input_tokens=MAX_INPUT_TOKENS,
            max_batch_inputs=256,
            max_input_bytes=64 << 10,
            normalized=True,
            dtype="float32",
            modalities=self._modalities(),
            max_image_bytes=PICTURE_LIMITS.max_bytes if self.embeds_pictures else 0,
            max_image_pixels=PICTURE_LIMITS.max_pixels if self.embeds_pictures else 0,
        )

    @unary(pb.EmbeddingServiceGetLoadResponse)
    async def GetLoad(
        self, request: pb.EmbeddingServiceGetLoadRequest, call: Call
    ) -> pb.EmbeddingServiceGetLoadResponse:
        return pb.EmbeddingServiceGetLoadResponse(num_running=self.num_running)

    def _modalities(self) -> list[pb.Modality]:
        return [pb.MODALITY_TEXT, *([pb.MODALITY_IMAGE] if self.embeds_pictures else [])]

    async def _work(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.num_running += 1
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
        finally:
            self.num_running -= 1


def _usage(lengths: Iterable[int]) -> common_pb2.Usage:
    return common_pb2.Usage(prompt_tokens=sum(lengths))
