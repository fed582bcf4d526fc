"""The image application that contract tests talk to: in this process or on the platform."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from PIL import Image

from orrery.v1 import common_pb2
from orrery.v1 import image_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from orrery.v1.image_pb2_grpc import ImageServiceStub
from services.image.config import BatchingConfig, ImageConfig, RequestLimitsConfig
from services.runtime.message_size import MAX_MESSAGE_BYTES

APPLICATION = "diffusion"
RANKING_APPLICATION = "clip"
PROMPT = "a red circle left of a blue square"
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
CONFIG = ImageConfig(
    model_name="tiny-diffusion",
    model_path="random",
    num_threads=1,
    ranking_application=RANKING_APPLICATION,
    batching=BatchingConfig(max_running=4, max_waiting=256),
    limits=RequestLimitsConfig(max_pixels=1 << 16),
)

Metadata = tuple[tuple[str, str], ...]
Pixels = npt.NDArray[np.uint8]
Message = pb.ImageServiceGenerateResponse | pb.EditResponse


@dataclass(frozen=True, slots=True)
class ServedImages:
    """An image application, and the CLIP application that it asks."""

    channel: grpc.aio.Channel
    clip_channel: grpc.aio.Channel
    target: str
    routed: bool  # by `application` metadata

    @property
    def stub(self) -> ImageServiceStub:
        return ImageServiceStub(self.channel)

    @property
    def clip(self) -> EmbeddingServiceStub:
        return EmbeddingServiceStub(self.clip_channel)

    def at(self, application: str) -> Metadata:
        """The metadata that reaches an application."""
        return (("application", application),) if self.routed else ()

    @property
    def metadata(self) -> Metadata:
        return self.at(APPLICATION)

    async def generate(
        self, prompt: str = PROMPT, **parameters: Any
    ) -> list[pb.ImageServiceGenerateResponse]:
        """All messages of one call."""
        call = self.stub.Generate(wish(prompt, **parameters), metadata=self.metadata)
        return [message async for message in call]

    async def edit(self, request: pb.EditRequest) -> list[pb.EditResponse]:
        """All messages of one call."""
        return [message async for message in self.stub.Edit(request, metadata=self.metadata)]

    async def model(self) -> pb.GetImageModelResponse:
        response: pb.GetImageModelResponse = await self.stub.GetImageModel(
            pb.GetImageModelRequest(), metadata=self.metadata
        )
        return response

    async def load(self) -> pb.ImageServiceGetLoadResponse:
        response: pb.ImageServiceGetLoadResponse = await self.stub.GetLoad(
            pb.ImageServiceGetLoadRequest(), metadata=self.metadata
        )
        return response

    async def wait_until_idle(self, limit_s: float) -> pb.ImageServiceGetLoadResponse:
        """The load once nothing is held, or as it is when time is up."""
        end = time.monotonic() + limit_s
        while True:
            load = await self.load()
            if is_idle(load) or time.monotonic() > end:
                return load
            await asyncio.sleep(0.02)


def is_idle(load: pb.ImageServiceGetLoadResponse) -> bool:
    """No call, no picture, no byte of state."""
    return not (
        load.num_running
        or load.num_running_images
        or load.num_waiting_images
        or load.num_decoding_images
        or load.state_bytes
    )


def wish(prompt: str = PROMPT, **parameters: Any) -> pb.ImageServiceGenerateRequest:
    """Few steps, unless told otherwise."""
    return pb.ImageServiceGenerateRequest(
        prompt=prompt, parameters=pb.DiffusionParameters(**{"num_steps": 3, **parameters})
    )


def images(messages: Sequence[Message]) -> list[pb.GeneratedImage]:
    """The pictures of a call, in the order in which they came."""
    return [message.image for message in messages if message.HasField("image")]


def steps_of(messages: Sequence[Message], index: int = 0) -> list[int]:
    """The progress of one picture."""
    found = [message.progress for message in messages if message.HasField("progress")]
    return [progress.step for progress in found if progress.image_index == index]


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def pixels_of(png: bytes) -> Pixels:
    return np.asarray(opened(png))


def sent(pixels: Pixels, kind: str = "PNG") -> common_pb2.ImageContent:
    """A picture as a client sends it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return common_pb2.ImageContent(data=buffer.getvalue())


def drawing(width: int, height: int) -> Pixels:
    """A picture to edit: a disc on white."""
    rows, columns = np.mgrid[:height, :width]
    radius = np.hypot(rows - height / 2, columns - width / 2)
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[radius < min(width, height) / 3] = (220, 30, 30)
    return pixels


@dataclass(frozen=True, slots=True)
class InThisProcess:
    """Where the two services listen."""

    target: str
    clip_target: str


@contextmanager
def in_this_process(folder: Path) -> Iterator[InThisProcess]:
    """The real service and engine over a tiny model, beside the real CLIP service over another."""
    # Two libraries of models: not for tests of other services that share the fixtures' file.
    from tests.fakes.clip_server import clip_server_in_thread
    from tests.fakes.image_server import image_server_in_thread
    from tests.fakes.random_diffusion import random_diffusion_folder

    random_diffusion_folder(folder / "diffusion")
    with (
        clip_server_in_thread() as clip,
        image_server_in_thread(
            config=CONFIG, folder=folder / "diffusion", clip_target=clip.target
        ) as server,
    ):
        yield InThisProcess(server.target, clip.target)


@asynccontextmanager
async def reached(target: str, clip_target: str, *, routed: bool) -> AsyncIterator[ServedImages]:
    """The services that listen there."""
    async with (
        grpc.aio.insecure_channel(target, options=OPTIONS) as channel,
        grpc.aio.insecure_channel(clip_target, options=OPTIONS) as clip_channel,
    ):
        yield ServedImages(channel, clip_channel, target, routed)
