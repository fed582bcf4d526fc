"""Carries out the making of pictures: one job, its answer whole or as it comes.

Knows nothing of HTTP or of OpenAI's shapes. Leaving a stream or cancelling a task cancels the call,
and with it the pictures.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from orrery import methods
from orrery.v1 import image_pb2 as pb
from services.gateway.upstream import Caller, Service
from services.runtime.errors import DependencyDown

__all__ = ["ImageAnswer", "ImageJob", "Made", "complete", "stream"]

# What both RPCs send: the same events.
ImageAnswer: TypeAlias = pb.ImageServiceGenerateResponse | pb.EditResponse


class Made(NamedTuple):
    """All pictures of a job."""

    model: str
    images: list[pb.GeneratedImage]
    done: pb.ImagesDone


@dataclass(frozen=True, slots=True)
class ImageJob:
    """What is asked of one model, and by whom.

    `names` says what the client called a field that the service calls otherwise.
    """

    service: Service
    request: pb.ImageServiceGenerateRequest | pb.EditRequest
    caller: Caller
    names: Mapping[str, str] = field(default_factory=dict)


async def complete(job: ImageJob) -> Made:
    """All pictures to their end: by their number, or ranked ones as they were ranked."""
    images: list[pb.GeneratedImage] = []
    async with aclosing(stream(job)) as answers:
        async for answer in answers:
            if answer.HasField("image"):
                images.append(answer.image)
    if not job.request.parameters.rank_by_similarity:
        images.sort(key=lambda image: image.image_index)
    return Made(answer.model, images, answer.done)  # of the last: a stream without one raises


async def stream(job: ImageJob) -> AsyncGenerator[ImageAnswer, None]:
    """Messages as they come. Raises `DependencyDown` when they end before the last one."""
    is_whole = False
    async with aclosing(_answers(job)) as answers:
        async for answer in answers:
            is_whole = answer.HasField("done")
            yield answer
    if not is_whole:
        raise _cut_short()


def _answers(job: ImageJob) -> AsyncGenerator[ImageAnswer, None]:
    service, request, caller, names = job.service, job.request, job.caller, job.names
    if isinstance(request, pb.EditRequest):
        return service.stream(methods.EDIT_IMAGES, request, caller, names)
    return service.stream(methods.GENERATE_IMAGES, request, caller, names)


def _cut_short() -> DependencyDown:
    """One that is being stopped may end a stream as if all were well."""
    return DependencyDown("the image service stopped before all was done", retry_after_s=1.0)
