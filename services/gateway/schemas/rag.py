"""`/v1/rag`: questions answered from documents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from services.gateway.schemas.base import (
    CollectionName,
    ConsistencyToken,
    Float,
    ModelName,
    UInt32,
    User,
    refuse,
)
from services.gateway.schemas.search import Hit, RankingParameters, SearchMode, Stage

__all__ = ["AskAnswer", "AskRequest", "Conversation", "ConversationDeleted"]


class AskRequest(RankingParameters):
    """Body of `POST /v1/rag/ask`: `question` for one, `questions` for many."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"collection": "docs", "question": "Who keeps the lamp?"}]}
    )

    question: str | None = None
    questions: Annotated[list[str], Field(min_length=1)] | None = None
    collection: CollectionName
    model: ModelName | None = Field(None, description="To answer with. Default: the service's.")
    conversation_id: str | None = Field(
        None,
        description="Yours: earlier turns are taken into account, and this one is added.",
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    explain: bool | None = Field(None, description="The times of all stages in the result.")
    consistency_token: ConsistencyToken | None = None
    user: User | None = None

    k: UInt32 | None = Field(None, description="Passages retrieved. Default 8.")
    max_passages: UInt32 | None = Field(None, description="Most passages put before the model.")
    search_mode: SearchMode | None = None
    mode: Literal["strict", "open"] | None = Field(
        None,
        description="`strict`, the default: from the passages alone. `open`: where they do not "
        "help, the model may answer by itself, without citations.",
    )
    num_queries: UInt32 | None = Field(None, description="Wordings searched for. Default 1.")
    hyde: bool | None = Field(None, description="Search by an answer that the model makes up.")
    num_samples: UInt32 | None = Field(
        None, description="Answers sampled; the most frequent is returned. Default 1."
    )
    chain_of_thought: bool | None = Field(None, description="Reason first, apart from the answer.")
    max_tokens: UInt32 | None = Field(None, description="Of the answer.")
    temperature: Float | None = None
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None

    @field_validator("stream")
    @classmethod
    def _one_question_streams(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("questions") is not None:
            raise refuse("invalid_value", "is not available together with questions")
        return value

    @field_validator("conversation_id")
    @classmethod
    def _one_question_converses(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("questions") is not None:
            raise refuse("invalid_value", "is not available together with questions")
        return value

    @field_validator("explain")
    @classmethod
    def _one_question_is_explained(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("questions") is not None:
            raise refuse("invalid_value", "is not available together with questions")
        return value

    @model_validator(mode="after")
    def _one_or_many(self) -> AskRequest:
        if (self.question is None) == (self.questions is None):
            raise refuse("invalid_value", "expected either question or questions")
        return self


class Citation(BaseModel):
    """A span of a passage that supports a span of the answer. Spans are in characters."""

    answer_start: int
    answer_end: int
    passage: int = Field(description="Index into `passages`.")
    chunk_id: str
    document_id: str
    document_title: str
    file_name: str
    source_start: int = Field(description="In the document's text.")
    source_end: int
    line_start: int | None = Field(description="Of the file, from 1; null = it has no lines.")
    line_end: int | None
    page: int | None
    quote: str
    score: float = Field(description="How well the quote supports the sentence, in [0, 1].")


class AskAnswer(BaseModel):
    """The whole answer. As events, `passages` comes first and the rest last."""

    id: str
    object: Literal["rag.answer"]
    answer: str
    reasoning: str
    abstention: Literal["no_passage", "model", "unsupported"] | None = Field(
        description="Why there is no answer in the documents; then `answer` says so."
    )
    citations: list[Citation]
    passages: list[Hit] = Field(description="All that were retrieved, best first.")
    used: list[int] = Field(description="Those put before the model, in the order there.")
    queries: list[str] = Field(description="What was searched for.")
    notices: list[str] = Field(description="What was left out or cut, and why.")
    model: str
    conversation_id: str | None
    turn_saved: bool
    truncated: bool = Field(description="The model reached `max_tokens`: it is not whole.")
    agreement: float
    index_generation: int
    usage: dict[str, int]
    timing: dict[str, int]
    timeline: list[Stage] | None = None


class Turn(BaseModel):
    question: str
    answer: str
    abstention: Literal["no_passage", "model", "unsupported"] | None


class Conversation(BaseModel):
    id: str
    object: Literal["rag.conversation"]
    turns: list[Turn]
    ttl_s: int = Field(description="Seconds until it is forgotten, unless it goes on.")


class ConversationDeleted(BaseModel):
    id: str
    object: Literal["rag.conversation.deleted"]
    deleted: Literal[True]
