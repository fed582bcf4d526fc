"""`/v1/embeddings` and `/v1/rerank`: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orrery.requests.embedding import EmbeddingPurpose, RerankMethod
from services.gateway.schemas.base import (
    MAX_ENTRIES,
    ModelName,
    StrictModel,
    UInt32,
    User,
    refuse,
)
from services.gateway.schemas.inputs import TextsTokensOrPictures
from services.gateway.schemas.pictures import EncodedPicture

__all__ = [
    "EmbeddingList",
    "EmbeddingRequest",
    "RerankAnswer",
    "RerankRequest",
]


class EmbeddingRequest(StrictModel):
    """Body of `POST /v1/embeddings`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "all-MiniLM-L6-v2", "input": ["The Lumen Guild", "A lamp"]}]
        }
    )

    model: ModelName
    input: TextsTokensOrPictures = Field(
        description="Token ids are of the model's own vocabulary, without special tokens. Pictures "
        "are for models that embed them, and come in the request: no address is fetched."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="`base64`: little-endian float32. Default `float`."
    )
    dimensions: Annotated[UInt32, Field(ge=1)] | None = Field(
        None, description="Keep only the first so many and normalise again. Default: all."
    )
    user: User | None = None
    # Beyond OpenAI's API.
    purpose: EmbeddingPurpose | None = Field(
        None,
        description="Some models put another prompt before queries than before passages. "
        "Default: the text as it is.",
    )
    truncate: bool | None = Field(
        None,
        description="Cut an input that is longer than the model's context, and mark it; "
        "otherwise it is refused. Default false.",
    )

    @model_validator(mode="after")
    def _options_of_texts_have_texts(self) -> EmbeddingRequest:
        if all(isinstance(entry, EncodedPicture) for entry in self.input):
            for name in ("purpose", "truncate"):
                if getattr(self, name):
                    raise refuse("invalid_value", f"{name}: is of texts, and there are none")
        return self


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    truncated: bool | None = Field(None, description="There only with `truncate: true`.")


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


def _text_of(value: Any) -> Any:
    """A document as a string, or as an object with nothing but its text."""
    if isinstance(value, dict):
        unknown = sorted(str(key) for key in set(value) - {"text"})
        if unknown:
            raise refuse("unknown_parameter", f"unknown field {unknown[0][:64]!r}")
        return value.get("text")
    return value


_DocumentText = Annotated[
    str, BeforeValidator(_text_of, json_schema_input_type=str | dict[Literal["text"], str])
]


class RerankRequest(StrictModel):
    """Body of `POST /v1/rerank`, as Cohere and Jina have it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "Who keeps the lamp?",
                    "documents": ["The keeper climbs the tower.", "Ships pass at night."],
                    "top_n": 1,
                }
            ]
        }
    )

    model: ModelName | None = Field(
        None,
        description="An embedding model, or the reranker of one. Default: the first that is "
        "served, with the best method that it has.",
    )
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[_DocumentText], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        description="Each a string or an object with its `text`."
    )
    top_n: Annotated[UInt32, Field(ge=1)] | None = Field(
        None, description="Return only the best. Default: all."
    )
    return_documents: bool | None = Field(None, description="Default false.")
    # Beyond their APIs.
    method: RerankMethod | None = Field(None, description="Default: the best that the model has.")
    user: User | None = None


class RerankDocument(BaseModel):
    text: str


class RerankResult(BaseModel):
    index: int = Field(description="Which of the documents.")
    relevance_score: float = Field(description="Higher is better; the method's own scale.")
    document: RerankDocument | None = None


class RerankAnswer(BaseModel):
    id: str
    object: Literal["list"]
    model: str = Field(description="The model that scored.")
    method: RerankMethod
    results: list[RerankResult] = Field(description="Best first.")
    usage: EmbeddingUsage
