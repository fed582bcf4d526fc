"""What calls of the RAG service return: passages, answers, citations, conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orrery.errors import OrreryError
from orrery.results.common import StageTiming, Timing, Usage
from orrery.results.retrieval import Hit

__all__ = [
    "Abstention",
    "Answer",
    "AnswerBatch",
    "AnswerDelta",
    "AnswerEvent",
    "Citation",
    "Conversation",
    "ConversationTurn",
    "Passages",
    "RagLoad",
]

Abstention: TypeAlias = Literal["no_passage", "model", "unsupported", "unknown"]
"""Why there is no answer: no passage was near enough to the question, the model said that the
passages do not tell, or no passage supports what the model said; unknown = a reason that is newer
than this client."""


@dataclass(frozen=True, slots=True)
class Passages:
    """What was retrieved for a question: the first event of an answer.

    Attributes:
        hits: All that were retrieved, best first.
        used: Indexes of those put before the model, in the order of their numbers there.
        queries: What was searched for.
        notices: What was left out or cut, and why.
    """

    hits: tuple[Hit, ...]
    used: tuple[int, ...]
    index_generation: int
    queries: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """What the answer gained since the last event. `reasoning` is not part of the answer."""

    text: str
    reasoning: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A span of a passage that supports a span of the answer.

    Attributes:
        answer_start: With `answer_end`, the characters of the answer.
        passage: Index into the hits of `Passages`.
        source_start: With `source_end`, characters in the document's text.
        line_start: With `line_end`, lines of the file from 1; None = the format has none.
        page: From 1; None = the format has none.
        quote: The cited words.
        score: How well the quote supports the sentence, in [0, 1].
    """

    answer_start: int
    answer_end: int
    passage: int
    chunk_id: str
    document_id: str
    document_title: str
    file_name: str
    source_start: int
    source_end: int
    line_start: int | None
    line_end: int | None
    page: int | None
    quote: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer, which is also the last event of its stream.

    Attributes:
        text: The whole answer; where it abstained, a sentence that says so.
        reasoning: The model's, where asked for.
        abstention: Why there is no answer; None = there is one.
        passages: What was retrieved.
        agreement: Share of the samples that agree with the answer; 1 where one was drawn.
        timeline: The stages, where asked for.
        turn_saved: Whether the conversation remembers this turn.
        truncated: Whether the model reached `max_tokens`: its answer, or the reasoning before it,
            is not whole.
    """

    request_id: str
    text: str
    reasoning: str
    abstention: Abstention | None
    citations: tuple[Citation, ...]
    passages: Passages
    model: str
    conversation_id: str
    agreement: float
    index_generation: int
    usage: Usage
    timing: Timing
    timeline: tuple[StageTiming, ...]
    turn_saved: bool
    truncated: bool

    @property
    def abstained(self) -> bool:
        """Whether it says that the documents do not tell."""
        return self.abstention is not None


AnswerEvent: TypeAlias = Passages | AnswerDelta | Answer
"""What an answer's stream yields: the passages, then the text as it comes, then all of it."""


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Many questions' answers, in their order: an answer, or the error of this question."""

    request_id: str
    items: tuple[Answer | OrreryError, ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """A question and its answer."""

    question: str
    answer: str
    abstention: Abstention | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a conversation remembers, and for how many seconds if it does not go on."""

    turns: tuple[ConversationTurn, ...]
    ttl_s: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class RagLoad:
    """What one replica of a RAG service is doing. Questions done are counted since its start."""

    num_running: int
    num_running_by_stage: Mapping[str, int]
    conversations_available: bool
    resident_bytes: int
    num_questions_done: int
    process_id: int
