"""The CLIP application that contract tests talk to: in this process or on the platform."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from tests.contract.embedding_served import TARGET_VARIABLE, Metadata, ServedEmbedding, text
from tests.fakes.clip_server import clip_server

APPLICATION = "clip"
DEMO_MODEL = Path(__file__).resolve().parents[2] / "models" / "orrery-clip"


@dataclass(frozen=True, slots=True)
class ServedClip:
    """A CLIP application, and the folder of the model that it serves."""

    channel: grpc.aio.Channel
    metadata: Metadata  # with the application's name
    folder: Path

    @property
    def stub(self) -> EmbeddingServiceStub:
        return EmbeddingServiceStub(self.channel)

    async def embed_texts(self, texts: Sequence[str], **fields: object) -> pb.EmbedTextResponse:
        request = pb.EmbedTextRequest(inputs=[text(value) for value in texts], **fields)
        response: pb.EmbedTextResponse = await self.stub.EmbedText(request, metadata=self.metadata)
        return response

    async def embed_images(
        self, images: Sequence[common_pb2.ImageContent], **fields: object
    ) -> pb.EmbedImageResponse:
        request = pb.EmbedImageRequest(images=images, **fields)
        response: pb.EmbedImageResponse = await self.stub.EmbedImage(
            request, metadata=self.metadata
        )
        return response

    async def classify(
        self,
        images: Sequence[common_pb2.ImageContent],
        labels: Sequence[str],
        **fields: object,
    ) -> pb.ClassifyResponse:
        request = pb.ClassifyRequest(images=images, labels=labels, **fields)
        response: pb.ClassifyResponse = await self.stub.Classify(request, metadata=self.metadata)
        return response

    async def similarity(
        self, left: Sequence[pb.SimilarityInput], right: Sequence[pb.SimilarityInput]
    ) -> np.ndarray:
        """`[num_left, num_right]`."""
        request = pb.SimilarityRequest(left=left, right=right)
        response = await self.stub.Similarity(request, metadata=self.metadata)
        return np.array([row.cosines for row in response.rows])

    async def model(self) -> pb.GetEmbeddingModelResponse:
        response: pb.GetEmbeddingModelResponse = await self.stub.GetEmbeddingModel(
            pb.GetEmbeddingModelRequest(), metadata=self.metadata
        )
        return response

    async def wait_until_idle(self, limit_s: float) -> pb.EmbeddingServiceGetLoadResponse:
        """The load once nothing runs or waits, or as it is when time is up."""
        return await ServedEmbedding(self.channel, self.metadata, exact=False).wait_until_idle(
            limit_s
        )


def vectors(response: pb.EmbedTextResponse | pb.EmbedImageResponse) -> np.ndarray:
    """`[num_inputs, dimensions]`."""
    return np.array([item.values for item in response.embeddings], dtype=np.float32)


def file_of(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def image(picture: Image.Image, kind: str = "PNG", media_type: str = "") -> common_pb2.ImageContent:
    return common_pb2.ImageContent(data=file_of(picture, kind), media_type=media_type)


@asynccontextmanager
async def clip_in_process(folder: Path) -> AsyncIterator[ServedClip]:
    async with (
        clip_server(folder) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield ServedClip(channel, (), folder)


@asynccontextmanager
async def clip_on_platform(target: str) -> AsyncIterator[ServedClip]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield ServedClip(channel, (("application", APPLICATION),), DEMO_MODEL)


def running_target() -> str | None:
    """Of a platform that the environment names."""
    return os.environ.get(TARGET_VARIABLE)
