"""`/v1/images/classify`: the request in both its forms, and the answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.gateway.schemas.base import (
    MAX_ENTRIES,
    ModelName,
    StrictModel,
    UInt32,
    User,
    refuse,
)
from services.gateway.schemas.embeddings import EmbeddingUsage
from services.gateway.schemas.pictures import PictureText

__all__ = [
    "ClassificationAnswer",
    "ClassificationForm",
    "ClassificationParameters",
    "ClassificationRequest",
]


class ClassificationParameters(StrictModel):
    """What both forms have."""

    model: ModelName | None = Field(
        None,
        description="An embedding model of texts and pictures. Default: the first that is served.",
    )
    labels: list[str] = Field(description="What the picture may show: at least two.")
    templates: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Sentences around a label, each with `{}` once where it goes; a label counts "
        "as the mean of its sentences. Default: the application's own.",
    )
    top_n: Annotated[UInt32, Field(ge=1)] | None = Field(
        None, description="Return only the best. Default: all."
    )
    user: User | None = None


class ClassificationRequest(ClassificationParameters):
    """Body of `POST /v1/images/classify`, as JSON: `image` for one, `images` for many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "image": "data:image/png;base64,iVBORw0KGgo...",
                    "labels": ["a red circle", "a blue square"],
                }
            ]
        }
    )

    image: PictureText | None = None
    images: Annotated[list[PictureText], Field(min_length=1, max_length=MAX_ENTRIES)] | None = None

    @model_validator(mode="after")
    def _one_or_many(self) -> ClassificationRequest:
        if (self.image is None) == (self.images is None):
            raise refuse("invalid_value", "expected either image or images")
        return self


class ClassificationForm(ClassificationParameters):
    """The fields beside `image`, which as `labels` and `templates` may come many times."""

    model_config = ConfigDict(strict=False)


class LabelScore(BaseModel):
    label: str
    index: int = Field(description="Which of the labels.")
    probability: float = Field(description="Over all labels.")
    similarity: float = Field(description="Cosine of the picture and the label.")


class Classification(BaseModel):
    object: Literal["classification"]
    index: int = Field(description="Which of the pictures.")
    scores: list[LabelScore] = Field(description="Best first.")


class ClassificationAnswer(BaseModel):
    id: str
    object: Literal["list"]
    model: str
    data: list[Classification] = Field(description="One for each picture, in their order.")
    usage: EmbeddingUsage
