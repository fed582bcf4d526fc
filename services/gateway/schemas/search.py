"""`/v1/search`: the request, the answer, and what asking has in common with searching."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orrery.requests.embedding import RerankMethod
from services.gateway.schemas.base import (
    MAX_ENTRIES,
    CollectionName,
    ConsistencyToken,
    Float,
    StrictModel,
    UInt32,
    refuse,
)
from services.gateway.schemas.filters import MetadataFilter
from services.gateway.schemas.pictures import PictureText

__all__ = ["ChunkFields", "Hit", "RankingParameters", "SearchAnswer", "SearchRequest"]

SearchMode = Literal["hybrid", "dense", "sparse"]


class FusionInput(StrictModel):
    """score = sum over both rankings of weight / (rrf_k + rank)."""

    dense_weight: Float | None = Field(None, description="Default 1.")
    sparse_weight: Float | None = Field(None, description="Default 1.")
    rrf_k: UInt32 | None = Field(None, description="Default 20.")


class DiversityInput(StrictModel):
    """Maximal marginal relevance."""

    lambda_: Float | None = Field(
        None, alias="lambda", description="1 = relevance alone, 0 = diversity alone. Default 0.5."
    )


class RankingParameters(StrictModel):
    """How passages are found and ordered."""

    filter: MetadataFilter | None = None
    fusion: FusionInput | None = None
    min_score: Float | None = Field(
        None, description="Least similarity of the vectors; in sparse mode, least BM25 score."
    )
    diversity: DiversityInput | None = Field(None, description="`{}` for the default.")
    rerank: RerankMethod | None = Field(None, description="Default: no reranking.")


def _query(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


class QueryInput(StrictModel):
    """What is looked for: a text, a vector, or both; or a picture, with or without a text."""

    text: str | None = None
    vector: list[Float] | None = Field(None, description="Given: the text is not embedded.")
    image: PictureText | None = Field(
        None,
        description="Find what is like this picture, in a collection of a model that embeds "
        "pictures. Excludes `vector`; a text beside it counts for its words alone.",
    )


_Query = Annotated[QueryInput, BeforeValidator(_query, json_schema_input_type=str | QueryInput)]


class SearchRequest(RankingParameters):
    """Body of `POST /v1/search`: `query` for one, `queries` for many."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "collection": "docs",
                    "query": "Who keeps the lamp?",
                    "k": 5,
                    "filter": {"type": "eq", "key": "year", "value": 9},
                }
            ]
        }
    )

    collection: CollectionName
    query: _Query | None = None
    queries: Annotated[list[_Query], Field(min_length=1, max_length=MAX_ENTRIES)] | None = None
    k: UInt32 | None = Field(None, description="Chunks returned. Default 10.")
    mode: SearchMode | None = Field(
        None, description="Default `hybrid`, where query and collection allow it."
    )
    num_candidates: UInt32 | None = Field(
        None, description="Taken from each ranking before fusion. Default max(4 k, 50)."
    )
    max_per_document: UInt32 | None = Field(None, description="Default: no limit.")
    include_text: bool | None = Field(None, description="Default true.")
    include_vectors: bool | None = Field(None, description="Default false.")
    consistency_token: ConsistencyToken | None = None
    explain: bool | None = Field(None, description="The times of all stages. One query only.")

    @model_validator(mode="after")
    def _one_or_many(self) -> SearchRequest:
        if (self.query is None) == (self.queries is None):
            raise refuse("invalid_value", "expected either query or queries")
        if self.queries is not None and self.explain:
            raise refuse("invalid_value", "explain: is not available together with queries")
        return self


class ChunkFields(BaseModel):
    id: str = Field(description="`<document id>#<ordinal>`.")
    document_id: str
    document_title: str
    file_name: str
    media_type: str = Field(description="Of the document's file.")
    ordinal: int
    text: str | None = Field(description="Empty for a picture.")
    title_path: list[str] = Field(description="Headings that it stands under, outermost first.")
    start: int = Field(description="In the document's text, in characters.")
    end: int
    line_start: int | None = Field(description="Of the file, from 1; null = it has no lines.")
    line_end: int | None
    page: int | None
    metadata: dict[str, str | float | bool | list[str]]
    vector: list[float] | None = None


class Hit(ChunkFields):
    score: float = Field(description="What the hits are ordered by.")
    dense_score: float | None
    sparse_score: float | None
    dense_rank: int | None
    sparse_rank: int | None
    rerank_score: float | None


class ItemFault(BaseModel):
    code: str
    message: str
    param: str | None


class QueryResult(BaseModel):
    hits: list[Hit]
    error: ItemFault | None


class Stage(BaseModel):
    stage: str
    start_ns: int = Field(description="Since the call arrived.")
    duration_ns: int
    detail: str


class SearchAnswer(BaseModel):
    id: str
    object: Literal["search"]
    hits: list[Hit] | None = Field(None, description="Best first. Of `query`.")
    results: list[QueryResult] | None = Field(None, description="Of `queries`, in their order.")
    index_generation: int
    usage: dict[str, int]
    timing: dict[str, int]
    timeline: list[Stage] | None = None
