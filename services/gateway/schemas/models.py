"""`/v1/models`: which models are served."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["ImageModel", "Model", "ModelList"]


class ImageModel(BaseModel):
    """What can be asked of a model that makes pictures."""

    default_size: str
    size_multiple: int = Field(description="Of width and of height, in pixels.")
    max_width: int
    max_height: int
    max_pixels: int
    default_steps: int
    max_steps: int
    default_guidance_scale: float
    max_guidance_scale: float
    default_scheduler: str
    schedulers: list[str]
    default_karras_sigmas: bool = Field(description="Of schedulers other than `ddim`.")
    default_strength: float = Field(description="Of edits.")
    max_n: int
    can_rank: bool = Field(description="Whether `rank_by_similarity` can be asked for.")
    loras: list[str] = Field(description="Merged into its weights.")


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the model was ready, in seconds since the Unix epoch.")
    owned_by: str = "orrery"
    max_model_len: int = Field(
        description="In tokens: prompt plus completion; of an embedding model, one input; of one "
        "that makes pictures, the prompt."
    )
    dimensions: int | None = Field(default=None, description="Of an embedding model's vectors.")
    modalities: list[Literal["text", "image"]] | None = Field(
        default=None, description="What an embedding model embeds."
    )
    image: ImageModel | None = Field(default=None, description="Of a model that makes pictures.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
