"""The words of the RAG service: questions, passages, turns, answers and what supports them.

Plain values that the pipeline passes from stage to stage. Knows nothing of protobuf, gRPC or Redis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

__all__ = [
    "Abstention",
    "Answer",
    "AnswerMode",
    "AnswerText",
    "AskOptions",
    "Citation",
    "Event",
    "GenerationTiming",
    "GenerationUsage",
    "Message",
    "Passage",
    "PassagesFound",
    "Question",
    "SearchMode",
    "StageTime",
    "Turn",
    "Vector",
]

Vector: TypeAlias = Sequence[float]


class AnswerMode(StrEnum):
    STRICT = "strict"  # from the passages alone
    OPEN = "open"  # where they do not help, by itself


class Abstention(StrEnum):
    """Why a question was not answered."""

    NO_PASSAGE = "no_passage"  # none reached the least score
    MODEL = "model"  # the model says that the passages do not tell
    UNSUPPORTED = "unsupported"  # no passage supports what the model said


class SearchMode(StrEnum):
    AUTO = "auto"
    HYBRID = "hybrid"
    DENSE = "dense"
    SPARSE = "sparse"


# --- what is asked ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How to answer; see `AskOptions` of the contract. None = the default of service or style."""

    k: int | None = None
    max_passages: int | None = None
    search_mode: SearchMode = SearchMode.AUTO
    min_score: float | None = None
    mode: AnswerMode = AnswerMode.STRICT
    num_queries: int = 1
    hyde: bool = False
    num_samples: int = 1
    chain_of_thought: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    # What the retrieval service alone reads (filter, fusion, diversity, rerank), in its own words.
    search: object = None


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one collection."""

    text: str
    collection: str
    options: AskOptions = AskOptions()
    conversation_id: str = ""  # empty: none
    consistency_token: str = ""
    model: str = ""  # empty: the service's default


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, earlier in a conversation."""

    question: str
    answer: str
    abstention: Abstention | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. `role` is system, user or assistant."""

    role: str
    content: str


# --- what is found ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found: characters `[start, start + len(text))` of its document's text.

    Lines and pages count from 1; 0 = the format has none. `source` is the hit in the retrieval
    service's own words, handed on to the client as it came.
    """

    chunk_id: str
    document_id: str
    text: str
    score: float
    start: int = 0
    document_title: str = ""
    file_name: str = ""  # empty: the document did not come as a file
    title_path: tuple[str, ...] = ()
    line_start: int = 0
    line_end: int = 0
    page: int = 0
    source: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Citation:
    """Characters of a passage that support characters `[answer_start, answer_end)` of the answer.

    `source_start` and `source_end` count in the document's text; `passage` is an index into the
    passages found; `score` is in [0, 1].
    """

    answer_start: int
    answer_end: int
    passage: int
    source_start: int
    source_end: int
    line_start: int
    line_end: int
    quote: str
    score: float


# --- what comes out ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of a call, in nanoseconds since the call arrived."""

    stage: str
    start_ns: int
    duration_ns: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GenerationUsage:
    """Tokens that the language model read and wrote, over all calls made to it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: GenerationUsage) -> GenerationUsage:
        return GenerationUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class GenerationTiming:
    """Where the time of the answer's own call to the language model went."""

    queue_ns: int = 0
    prefill_ns: int = 0
    decode_ns: int = 0


@dataclass(frozen=True, slots=True)
class PassagesFound:
    """The first event: what was searched for and found.

    `used` are the indexes of the passages put before the model, in the order of their numbers
    there.
    """

    passages: tuple[Passage, ...]
    used: tuple[int, ...]
    index_generation: int
    queries: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerText:
    """What the answer, or the reasoning kept apart from it, gained."""

    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The last event: the whole answer, or the sentence that says there is none."""

    text: str
    reasoning: str
    abstention: Abstention | None
    citations: tuple[Citation, ...]
    model: str  # empty: no model was asked
    agreement: float
    index_generation: int
    usage: GenerationUsage
    timing: GenerationTiming
    retrieval_ns: int
    rerank_ns: int
    timeline: tuple[StageTime, ...]
    turn_saved: bool
    truncated: bool  # the model reached the most tokens that it may write


Event: TypeAlias = PassagesFound | AnswerText | Answer
