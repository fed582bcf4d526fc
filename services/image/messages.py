"""Protobuf messages of `image.proto` to and from the domain, field by field, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from google.protobuf.message import Message

from orrery.v1 import common_pb2
from orrery.v1 import image_pb2 as pb
from services.image.checks import Parameters, PreviewWish, invalid
from services.image.events import Advanced, Done, LatentPreview, Made, PngPreview, ServiceEvent
from services.image.sources import SentPicture
from services.image.types import Latents, PictureRequest, PreviewKind, SchedulerName
from services.image.wishes import Edit, Wish

__all__ = ["edit_wish", "generate_wish", "scheduler_number", "set_event"]

_SCHEDULER_NUMBERS: Mapping[SchedulerName, pb.DiffusionScheduler] = MappingProxyType(
    {
        SchedulerName.DDIM: pb.DIFFUSION_SCHEDULER_DDIM,
        SchedulerName.EULER: pb.DIFFUSION_SCHEDULER_EULER,
        SchedulerName.EULER_ANCESTRAL: pb.DIFFUSION_SCHEDULER_EULER_ANCESTRAL,
        SchedulerName.DPM_SOLVER_PP_2M: pb.DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M,
    }
)
_SCHEDULERS: Mapping[int, SchedulerName] = MappingProxyType(
    {number: name for name, number in _SCHEDULER_NUMBERS.items()}
)
_PREVIEW_KINDS: Mapping[int, PreviewKind] = MappingProxyType(
    {
        pb.PREVIEW_KIND_UNSPECIFIED: PreviewKind.DECODED,
        pb.PREVIEW_KIND_DECODED: PreviewKind.DECODED,
        pb.PREVIEW_KIND_LATENT: PreviewKind.LATENT,
    }
)

ResponseT = TypeVar("ResponseT", pb.ImageServiceGenerateResponse, pb.EditResponse)


def generate_wish(request: pb.ImageServiceGenerateRequest) -> Wish:
    """Raises `InvalidRequest` for a number that the contract does not have."""
    return Wish(request.prompt, _parameters(request.parameters))


def edit_wish(request: pb.EditRequest) -> Wish:
    """Raises `InvalidRequest` for a missing picture, or a number that the contract has not."""
    if not request.HasField("image"):
        raise invalid("image", "expected a picture to begin from")
    mask = _sent(request.mask) if request.HasField("mask") else None
    edit = Edit(_sent(request.image), mask, _decimal(request, "strength"))
    return Wish(request.prompt, _parameters(request.parameters), edit)


def scheduler_number(name: SchedulerName) -> pb.DiffusionScheduler:
    """As the contract numbers it."""
    return _SCHEDULER_NUMBERS[name]


def set_event(response: ResponseT, event: ServiceEvent) -> ResponseT:
    """Puts the event into a message of either stream; returns the message."""
    match event:
        case Advanced(index, step, num_steps):
            progress = pb.ImageProgress(image_index=index, step=step, num_steps=num_steps)
            response.progress.CopyFrom(progress)
        case PngPreview(index, step, png):
            response.preview.CopyFrom(pb.ImagePreview(image_index=index, step=step, png=png))
        case LatentPreview(index, step, latents):
            response.preview.CopyFrom(
                pb.ImagePreview(image_index=index, step=step, latent=_latent(latents))
            )
        case Made():
            response.image.CopyFrom(_image(event))
        case Done():
            response.done.CopyFrom(_done(event))
    return response


def _parameters(message: pb.DiffusionParameters) -> Parameters:
    return Parameters(
        negative_prompt=message.negative_prompt,
        n=_number(message, "n"),
        width=_number(message, "width"),
        height=_number(message, "height"),
        num_steps=_number(message, "num_steps"),
        guidance_scale=_decimal(message, "guidance_scale"),
        guidance_rescale=_decimal(message, "guidance_rescale"),
        scheduler=_scheduler(message.scheduler),
        eta=_decimal(message, "eta"),
        karras_sigmas=message.karras_sigmas if message.HasField("karras_sigmas") else None,
        seed=_number(message, "seed"),
        previews=_previews(message.previews) if message.HasField("previews") else None,
        rank_by_similarity=message.rank_by_similarity,
        top_n=_number(message, "top_n"),
    )


def _scheduler(number: int) -> SchedulerName | None:
    if number == pb.DIFFUSION_SCHEDULER_UNSPECIFIED:
        return None
    if number not in _SCHEDULERS:
        known = ", ".join(name.value for name in SchedulerName)
        raise invalid("parameters.scheduler", f"expected one of {known}, got {number}")
    return _SCHEDULERS[number]


def _previews(message: pb.PreviewOptions) -> PreviewWish:
    if message.kind not in _PREVIEW_KINDS:
        raise invalid("parameters.previews.kind", f"expected DECODED or LATENT, got {message.kind}")
    return PreviewWish(_number(message, "every_num_steps"), _PREVIEW_KINDS[message.kind])


def _sent(message: common_pb2.ImageContent) -> SentPicture:
    return SentPicture(message.data, message.media_type)


def _number(message: Message, field: str) -> int | None:
    return int(getattr(message, field)) if message.HasField(field) else None


def _decimal(message: Message, field: str) -> float | None:
    """The decimal that the caller wrote: 0.7, which 32 bits make 0.699999988, and of which ten
    steps are 7 and not 6.
    """
    return float(str(np.float32(getattr(message, field)))) if message.HasField(field) else None


def _latent(latents: Latents) -> pb.LatentTensor:
    return pb.LatentTensor(shape=latents.shape, data=latents.astype("<f4", copy=False).tobytes())


def _image(made: Made) -> pb.GeneratedImage:
    return pb.GeneratedImage(
        image_index=made.index,
        png=made.png,
        width=made.request.width,
        height=made.request.height,
        recipe=_recipe(made.request),
        similarity=made.similarity,
    )


def _recipe(request: PictureRequest) -> pb.ImageRecipe:
    sampling, source = request.sampling, request.source
    return pb.ImageRecipe(
        seed=request.seed,
        num_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        guidance_rescale=sampling.guidance_rescale,
        scheduler=scheduler_number(sampling.scheduler),
        eta=sampling.eta,
        karras_sigmas=sampling.karras_sigmas,
        strength=None if source is None else source.strength,
    )


def _done(done: Done) -> pb.ImagesDone:
    """All but the time of the whole call."""
    return pb.ImagesDone(
        queue_ns=int(done.queue_s * 1e9),
        denoise_ns=int(done.denoise_s * 1e9),
        decode_ns=int(done.decode_s * 1e9),
        rank_ns=int(done.rank_s * 1e9),
        prompt_tokens=done.num_prompt_tokens,
    )
