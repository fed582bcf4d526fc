"""Pictures to be made, and pictures to be judged -> the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from orrery.v1 import embedding_pb2
from orrery.v1 import image_pb2 as pb
from orrery.v1.common_pb2 import ImageContent
from services.gateway.schemas.classification import ClassificationParameters
from services.gateway.schemas.images import (
    ImageEditForm,
    ImageGenerationRequest,
    ImageParameters,
)

__all__ = ["IMAGE_NAMES", "classify_request", "edit_request", "generate_request"]

_SCHEDULERS = MappingProxyType(
    {
        None: pb.DIFFUSION_SCHEDULER_UNSPECIFIED,
        "ddim": pb.DIFFUSION_SCHEDULER_DDIM,
        "euler": pb.DIFFUSION_SCHEDULER_EULER,
        "euler_ancestral": pb.DIFFUSION_SCHEDULER_EULER_ANCESTRAL,
        "dpm_solver_pp_2m": pb.DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M,
    }
)
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
# The contract's, of edits.
_DEFAULT_STRENGTH = 0.8


def generate_request(
    body: ImageGenerationRequest, model: pb.GetImageModelResponse
) -> pb.ImageServiceGenerateRequest:
    """Pictures from a text."""
    num_steps = model.default_num_steps if body.steps is None else body.steps
    return pb.ImageServiceGenerateRequest(
        model=model.model, prompt=body.prompt, parameters=_parameters(body, num_steps)
    )


def edit_request(
    form: ImageEditForm,
    model: pb.GetImageModelResponse,
    image: ImageContent,
    mask: ImageContent | None,
) -> pb.EditRequest:
    """A picture changed by a text."""
    num_steps = model.default_num_steps if form.steps is None else form.steps
    strength = _DEFAULT_STRENGTH if form.strength is None else form.strength
    return pb.EditRequest(
        model=model.model,
        prompt=form.prompt,
        image=image,
        mask=mask,
        strength=form.strength,
        parameters=_parameters(form, int(num_steps * min(max(strength, 0.0), 1.0))),
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
