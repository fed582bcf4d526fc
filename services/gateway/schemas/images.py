"""`/v1/images/generations` and `/v1/images/edits`: requests, answers, events.

Types and wire sizes are checked here; what the model sets (sizes, steps, guidance, `n`) is checked
by the service, whose error names the same field.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from orrery.requests.images import DiffusionScheduler
from services.gateway.schemas.base import (
    Float,
    ModelName,
    StrictModel,
    UInt32,
    Unsupported,
    User,
    refuse,
)

__all__ = [
    "ImageEditForm",
    "ImageGenerationRequest",
    "ImageParameters",
    "ImagesAnswer",
]

_SIZE = re.compile(r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}")
# As OpenAI's, and more: a preview costs as much as decoding a picture.
_MAX_PARTIAL_IMAGES = 10


def _size(value: str) -> str:
    if value != "auto" and not _SIZE.fullmatch(value):
        raise refuse("invalid_value", "expected auto, or width and height in pixels as 64x64")
    return value


class ImageParameters(StrictModel):
    """What both endpoints that make pictures accept. Unset and null mean the model's default."""

    model: ModelName | None = Field(
        None, description="A model that makes pictures. Default: the first that is served."
    )
    prompt: Annotated[str, Field(min_length=1)] = Field(
        description="What should be seen. Longer than the model's context is refused."
    )
    n: UInt32 | None = Field(None, description="Pictures. Default 1.")
    size: Annotated[str, AfterValidator(_size)] | None = Field(
        None,
        description="`WIDTHxHEIGHT` in pixels, multiples of what `/v1/models` tells, or `auto`: "
        "the model's own; of an edit, the picture's.",
    )
    user: User | None = None

    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: Annotated[UInt32, Field(le=_MAX_PARTIAL_IMAGES)] | None = Field(
        None,
        description="Only with `stream: true`: at most so many pictures on the way, each of the "
        "model's estimate of what will come out. Default 0.",
    )

    # Of OpenAI's API, and without a choice here.
    response_format: Annotated[
        Any,
        Unsupported("pictures are sent and not kept, so that there is no address", ("b64_json",)),
    ] = None
    output_format: Annotated[Any, Unsupported("pictures are PNG files", ("png",))] = None
    output_compression: Annotated[Any, Unsupported("PNG files lose nothing", (100,))] = None
    background: Annotated[Any, Unsupported("the models paint every pixel", ("auto", "opaque"))] = (
        None
    )
    moderation: Annotated[Any, Unsupported("there is none", ("auto", "low"))] = None
    quality: Annotated[
        Any, Unsupported("steps, scheduler and size set it", ("auto", "standard"))
    ] = None

    # Beyond OpenAI's API.
    negative_prompt: str | None = Field(
        None, description="What should not be seen. Only with a `guidance_scale` above 1."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None,
        description="Of the first picture; the next has the next. The same seed and parameters "
        "give the same picture whatever else the server makes. Default: drawn, and told.",
    )
    steps: UInt32 | None = Field(None, description="More are slower and finer.")
    guidance_scale: Float | None = Field(
        None, description="How much the prompt counts (classifier-free guidance); 1 = no more."
    )
    guidance_rescale: Float | None = Field(
        None, description="Against colours that guidance drives too far, 0 to 1. Default 0."
    )
    scheduler: DiffusionScheduler | None = None
    eta: Float | None = Field(None, description="Of `ddim`: 0 = no noise is added, to 1.")
    karras_sigmas: bool | None = Field(
        None, description="Noise levels as in Karras et al. 2022; not with `ddim`."
    )
    rank_by_similarity: bool | None = Field(
        None, description="Return the pictures by how like the prompt CLIP finds them, best first."
    )
    top_n: Annotated[UInt32, Field(ge=1)] | None = Field(
        None, description="With `rank_by_similarity`: only the best so many of the `n`."
    )

    @field_validator("partial_images")
    @classmethod
    def _partial_images_need_a_stream(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("stream"):
            raise refuse("invalid_value", "is only allowed together with stream: true")
        return value

    @property
    def width_and_height(self) -> tuple[int | None, int | None]:
        """In pixels; None = as the model or the picture has it."""
        if self.size is None or self.size == "auto":
            return None, None
        width, height = self.size.split("x")
        return int(width), int(height)

    @property
    def num_returned(self) -> int:
        """Pictures in the answer, if the service finds nothing wrong."""
        n = 1 if self.n is None else self.n
        return n if self.top_n is None else min(n, self.top_n)


class ImageGenerationRequest(ImageParameters):
    """Body of `POST /v1/images/generations`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "orrery-diffusion",
                    "prompt": "a red circle left of a blue square",
                    "n": 4,
                    "seed": 7,
                    "rank_by_similarity": True,
                    "top_n": 1,
                }
            ]
        }
    )

    style: Annotated[Any, Unsupported("the prompt sets it")] = None


class ImageEditForm(ImageParameters):
    """The fields beside `image` and `mask` of `POST /v1/images/edits`: texts, read by their type.

    An empty one is one that is not given.
    """

    model_config = ConfigDict(strict=False)

    strength: Float | None = Field(
        None,
        description="How far from the picture: above 0, to 1 = from pure noise. Of `steps`, this "
        "share is done. `/v1/models` tells the default.",
    )
    output_compression: Annotated[Any, Unsupported("PNG files lose nothing", ("100",))] = None
    input_fidelity: Annotated[
        Any, Unsupported("strength sets how much of the picture stays", ("low",))
    ] = None


class ImageRecipe(BaseModel):
    """With the seed, what makes the picture again."""

    steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: str
    eta: float | None = Field(None, description="Of `ddim`.")
    karras_sigmas: bool | None = Field(None, description="Of the other schedulers.")
    strength: float | None = Field(None, description="Of an edit.")


class Image(BaseModel):
    b64_json: str = Field(description="A PNG file; prompt and recipe stand in it as text.")
    seed: int
    size: str
    similarity: float | None = Field(
        None, description="With `rank_by_similarity`: cosine of picture and prompt."
    )
    recipe: ImageRecipe


class ImageTokens(BaseModel):
    text_tokens: int
    image_tokens: int


class ImageUsage(BaseModel):
    """In OpenAI's shape. Pictures have no tokens here."""

    input_tokens: int
    input_tokens_details: ImageTokens
    output_tokens: int
    output_tokens_details: ImageTokens
    total_tokens: int


class ImagesAnswer(BaseModel):
    created: int
    model: str
    background: Literal["opaque"]
    output_format: Literal["png"]
    data: list[Image] = Field(description="By the seed; with `rank_by_similarity`, the best first.")
    usage: ImageUsage
    timing: dict[str, int]
