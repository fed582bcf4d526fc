"""Requests of the image service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from orrery.requests.common import assign, choose
from orrery.requests.pictures import ImageInput, Picture
from orrery.v1 import image_pb2 as pb

__all__ = [
    "SCHEDULERS",
    "DiffusionScheduler",
    "EditSource",
    "ImageOptions",
    "PreviewKind",
    "build_edit",
    "build_generate_images",
]

DiffusionScheduler: TypeAlias = Literal["ddim", "euler", "euler_ancestral", "dpm_solver_pp_2m"]
PreviewKind: TypeAlias = Literal["decoded", "latent"]

SCHEDULERS = {
    "ddim": pb.DIFFUSION_SCHEDULER_DDIM,
    "euler": pb.DIFFUSION_SCHEDULER_EULER,
    "euler_ancestral": pb.DIFFUSION_SCHEDULER_EULER_ANCESTRAL,
    "dpm_solver_pp_2m": pb.DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M,
}
_PREVIEW_KINDS = {
    "decoded": pb.PREVIEW_KIND_DECODED,
    "latent": pb.PREVIEW_KIND_LATENT,
}


class ImageOptions(TypedDict, total=False):
    """How pictures are made. None = the application's default, which `images.model` tells.

    The fields of `orrery.v1.DiffusionParameters`; those of its `previews` stand beside the others.

    Attributes:
        negative_prompt: What should not be seen.
        n: Pictures; the first has `seed`, the next `seed + 1`, and so on.
        width: With `height`, in pixels; an edit keeps the picture's own.
        guidance_scale: 1 = no guidance.
        guidance_rescale: From 0, none, to 1.
        eta: Of `ddim` alone: from 0, deterministic, to 1.
        karras_sigmas: Refused with `ddim`.
        preview_every: A preview after every so many steps; None = none, unless `preview_kind` asks.
        preview_kind: `decoded` = a PNG; `latent` = the numbers that would be decoded. Previews cost
            time: without `on_preview`, `generate` and `edit` refuse to ask for them.
        rank_by_similarity: Score each picture by CLIP, and give back the best first.
        top_n: Of the ranked ones, only so many.
    """

    negative_prompt: str | None
    n: int | None
    width: int | None
    height: int | None
    num_steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    scheduler: DiffusionScheduler | None
    eta: float | None
    karras_sigmas: bool | None
    seed: int | None
    preview_every: int | None
    preview_kind: PreviewKind | None
    rank_by_similarity: bool | None
    top_n: int | None


@dataclass(frozen=True, slots=True)
class EditSource:
    """What an edit begins with: a picture, what of it is painted anew, and how far to go."""

    image: ImageInput
    mask: ImageInput | None = None
    strength: float | None = None


def build_generate_images(
    prompt: str, options: Mapping[str, Any], *, previews: bool | None
) -> pb.ImageServiceGenerateRequest:
    """A `Generate` request.

    `previews`: True = somebody waits for them, however often they come; False = nobody does; None =
    the options say whether.

    Raises:
        TypeError: An unknown keyword, a value of a wrong type, or previews that nobody waits for.
        InvalidRequestError: An unknown choice, or a number outside its field's range.
    """
    request = pb.ImageServiceGenerateRequest()
    assign(request, "prompt", prompt)
    _fill(request.parameters, options, previews)
    return request


def build_edit(
    prompt: str, source: EditSource, options: Mapping[str, Any], *, previews: bool | None
) -> tuple[pb.EditRequest, list[Picture]]:
    """An `Edit` request, and the pictures that it still lacks; errors as when generating."""
    request = pb.EditRequest()
    assign(request, "prompt", prompt)
    pictures = [Picture(request.image, source.image, "image")]
    if source.mask is not None:
        pictures.append(Picture(request.mask, source.mask, "mask"))
    if source.strength is not None:
        assign(request, "strength", source.strength)
    _fill(request.parameters, options, previews)
    return request, pictures


def _fill(
    parameters: pb.DiffusionParameters, options: Mapping[str, Any], previews: bool | None
) -> None:
    if previews:
        parameters.previews.SetInParent()
    for name, value in options.items():
        if name not in ImageOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {name!r}: not an option of pictures")
        if value is None:
            continue
        if previews is False and name in ("preview_every", "preview_kind"):
            raise TypeError(f"{name}: there is no on_preview that would be given the previews")
        if name == "scheduler":
            parameters.scheduler = choose(SCHEDULERS, value, name)  # type: ignore[assignment]
        elif name == "preview_kind":
            kind = choose(_PREVIEW_KINDS, value, name)
            parameters.previews.kind = kind  # type: ignore[assignment]
        elif name == "preview_every":
            assign(parameters.previews, "every_num_steps", value, name)
        else:
            assign(parameters, name, value)
