"""Carries an embedding out: the texts in one call, the pictures in another, in one order again.

Knows nothing of HTTP or of OpenAI's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from orrery import methods
from orrery.requests.embedding import PURPOSES
from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.gateway.catalog import ServedModel
from services.gateway.concurrency import both
from services.gateway.pictures import check_embeds_pictures, decoded_pictures
from services.gateway.schemas.embeddings import EmbeddingRequest
from services.gateway.schemas.pictures import EncodedPicture
from services.gateway.upstream import Caller, Service

__all__ = ["Embedded", "EmbeddingJob", "embed"]

_PURPOSES = MappingProxyType(PURPOSES | {None: pb.EMBEDDING_PURPOSE_UNSPECIFIED})


class Embedded(NamedTuple):
    """One vector for each input."""

    model: str
    embeddings: Sequence[pb.Embedding]
    usage: common_pb2.Usage


@dataclass(frozen=True, slots=True)
class EmbeddingJob:
    """What is asked of one model, and by whom."""

    model: ServedModel[pb.GetEmbeddingModelResponse]
    service: Service
    body: EmbeddingRequest
    caller: Caller


async def embed(job: EmbeddingJob) -> Embedded:
    """Vectors in the order of the inputs."""
    inputs = job.body.input
    pictures = [i for i, entry in enumerate(inputs) if isinstance(entry, EncodedPicture)]
    if not pictures:
        response = await _texts(job, range(len(inputs)))
        return Embedded(response.model, response.embeddings, response.usage)
    check_embeds_pictures(job.model, f"input[{pictures[0]}]")
    if len(pictures) == len(inputs):
        images = await _pictures(job, pictures)
        return Embedded(images.model, images.embeddings, common_pb2.Usage())
    texts = [i for i, entry in enumerate(inputs) if not isinstance(entry, EncodedPicture)]
    of_texts, of_pictures = await both(_texts(job, texts), _pictures(job, pictures))
    found = dict(zip(texts, of_texts.embeddings, strict=True))
    found |= zip(pictures, of_pictures.embeddings, strict=True)
    return Embedded(of_texts.model, [found[i] for i in range(len(inputs))], of_texts.usage)


async def _texts(job: EmbeddingJob, positions: Sequence[int]) -> pb.EmbedTextResponse:
    body = job.body
    request = pb.EmbedTextRequest(
        model=job.model.name,
        inputs=[_input(body.input[i]) for i in positions],
        purpose=_PURPOSES[body.purpose],
        dimensions=body.dimensions,
        truncate=body.truncate,
    )
    names = _names("inputs", positions)
    return await job.service.call(methods.EMBED_TEXT, request, job.caller, names)


async def _pictures(job: EmbeddingJob, positions: Sequence[int]) -> pb.EmbedImageResponse:
    encoded = [(f"input[{i}]", job.body.input[i]) for i in positions]
    request = pb.EmbedImageRequest(
        model=job.model.name,
        images=await decoded_pictures(encoded, job.model.info.max_image_bytes),
        dimensions=job.body.dimensions,
    )
    names = _names("images", positions)
    return await job.service.call(methods.EMBED_IMAGE, request, job.caller, names)


def _input(entry: str | list[int]) -> pb.EmbeddingInput:
    if isinstance(entry, str):
        return pb.EmbeddingInput(text=entry)
    return pb.EmbeddingInput(token_ids=common_pb2.TokenIds(ids=entry))


def _names(theirs: str, positions: Sequence[int]) -> Mapping[str, str]:
    """Where the client wrote what the service counts among its own kind."""
    moved = {
        f"{theirs}[{number}]": f"input[{position}]"
        for number, position in enumerate(positions)
        if number != position
    }
    return {theirs: "input", **moved}
