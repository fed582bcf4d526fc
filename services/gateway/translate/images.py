"""Pictures to be made, and pictures to be judged -> the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from orrery.requests.images import SCHEDULERS
from orrery.v1 import embedding_pb2
from orrery.v1 import image_pb2 as pb
from orrery.v1.common_pb2 import ImageContent
from services.gateway.rendering.values import decimal
from services.gateway.schemas.classification import ClassificationParameters
from services.gateway.schemas.images import (
    ImageEditForm,
    ImageGenerationRequest,
    ImageParameters,
)

__all__ = ["IMAGE_NAMES", "classify_request", "edit_request", "generate_request"]

_SCHEDULERS = MappingProxyType(SCHEDULERS | {None: pb.DIFFUSION_SCHEDULER_UNSPECIFIED})
# A client writes parameters beside the prompt, and some by OpenAI's names.
IMAGE_NAMES = MappingProxyType(
    {
        "parameters": "",
        "parameters.width": "size",
        "parameters.height": "size",
        "parameters.num_steps": "steps",
        "parameters.previews": "partial_images",
        "parameters.previews.every_num_steps": "partial_images",
    }
)


def generate_request(
    body: ImageGenerationRequest, model: pb.GetImageModelResponse
) -> pb.ImageServiceGenerateRequest:
    """Pictures from a text."""
    return pb.ImageServiceGenerateRequest(
        model=model.model,
        prompt=body.prompt,
        parameters=_parameters(body, _num_steps(body, model)),
    )


def edit_request(
    form: ImageEditForm,
    model: pb.GetImageModelResponse,
    image: ImageContent,
    mask: ImageContent | None,
) -> pb.EditRequest:
    """A picture changed by a text."""
    strength = decimal(model.default_strength) if form.strength is None else form.strength
    num_steps_done = int(_num_steps(form, model) * min(max(strength, 0.0), 1.0))
    return pb.EditRequest(
        model=model.model,
        prompt=form.prompt,
        image=image,
        mask=mask,
        strength=form.strength,
        parameters=_parameters(form, num_steps_done),
    )


def classify_request(
    body: ClassificationParameters, model_name: str, images: Sequence[ImageContent]
) -> embedding_pb2.ClassifyRequest:
    """Which of the labels fits each picture."""
    return embedding_pb2.ClassifyRequest(
        model=model_name,
        images=images,
        labels=body.labels,
        templates=body.templates,
        top_n=body.top_n,
    )


def _num_steps(body: ImageParameters, model: pb.GetImageModelResponse) -> int:
    return model.default_num_steps if body.steps is None else body.steps


def _parameters(body: ImageParameters, num_steps_done: int) -> pb.DiffusionParameters:
    width, height = body.width_and_height
    return pb.DiffusionParameters(
        negative_prompt=body.negative_prompt or "",
        n=body.n,
        width=width,
        height=height,
        num_steps=body.steps,
        guidance_scale=body.guidance_scale,
        guidance_rescale=body.guidance_rescale,
        scheduler=_SCHEDULERS[body.scheduler],
        eta=body.eta,
        karras_sigmas=body.karras_sigmas,
        seed=body.seed,
        previews=_previews(body, num_steps_done),
        rank_by_similarity=bool(body.rank_by_similarity),
        top_n=body.top_n,
    )


def _previews(body: ImageParameters, num_steps_done: int) -> pb.PreviewOptions | None:
    """As many as asked for, evenly between the first step and the picture; fewer where steps are.

    Every k-th of s steps, the last excepted, are (s - 1) // k previews.
    """
    if not body.partial_images:
        return None
    every_num_steps = -(-num_steps_done // (body.partial_images + 1))
    return pb.PreviewOptions(every_num_steps=max(1, every_num_steps), kind=pb.PREVIEW_KIND_DECODED)
