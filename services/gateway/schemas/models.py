"""`/v1/models`: which models are served."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["Model", "ModelList"]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the model was ready, in seconds since the Unix epoch.")
    owned_by: str = "orrery"
    max_model_len: int = Field(
        description="In tokens: prompt plus completion; of an embedding model, one input."
    )
    dimensions: int | None = Field(None, description="Of an embedding model's vectors.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
