"""What the pipeline asks of other services, in the pipeline's own words: the seam.

`services.rag.peers` asks over gRPC; tests put fakes here. Each call takes a `Caller`, whose
deadline it must keep, raises the errors of `services.runtime.errors`, and gives up its work when
it is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.rag.types import (
    GenerationTiming,
    GenerationUsage,
    Message,
    Passage,
    SearchMode,
    StageTime,
    Vector,
)
from services.runtime.peer import Caller

__all__ = [
    "Embedded",
    "Embedder",
    "Found",
    "Piece",
    "Sampling",
    "Search",
    "SearchQuery",
    "Services",
    "TextPurpose",
    "Tokenized",
]


class TextPurpose(StrEnum):
    QUERY = "query"
    PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class Embedder:
    """What embeds a collection's queries: an application ("": the default one), and how many of
    its vectors' dimensions the collection keeps."""

    application: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """One vector for each text; `num_truncated` texts were longer than the model reads."""

    vectors: tuple[Vector, ...]
    num_truncated: int = 0


@dataclass(frozen=True, slots=True)
class SearchQuery:
    text: str
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """One search, by one query or several. `rest` is in the retrieval service's own words."""

    collection: str
    queries: tuple[SearchQuery, ...]
    k: int
    mode: SearchMode = SearchMode.AUTO
    min_score: float | None = None
    consistency_token: str = ""
    explain: bool = False
    rest: object = None


@dataclass(frozen=True, slots=True)
class Found:
    """A ranking for each query, best first; how long reranking took; the search's own stages."""

    rankings: tuple[tuple[Passage, ...], ...]
    index_generation: int
    rerank_ns: int = 0
    timeline: tuple[StageTime, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokenized:
    token_ids: tuple[int, ...]
    max_model_len: int  # prompt and completion together


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, and how many completions are drawn."""

    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    num_samples: int = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """What one of the completions gained. `usage` and `timing` are of the whole call so far.

    `truncated`: it ended here because it reached the most tokens asked for.
    """

    index: int
    text: str
    model: str
    usage: GenerationUsage
    timing: GenerationTiming
    truncated: bool = False


class Services(Protocol):
    """The embedding, retrieval and generation services."""

    async def embedder(
        self, collection: str, consistency_token: str, caller: Caller
    ) -> Embedder | None:
        """What embeds the collection's queries; None: nothing does. Raises `CollectionNotFound`."""
        ...

    async def embed(
        self, embedder: Embedder, texts: Sequence[str], purpose: TextPurpose, caller: Caller
    ) -> Embedded:
        """The texts' vectors, in their order."""
        ...

    async def search(self, search: Search, caller: Caller) -> Found:
        """The passages for each query."""
        ...

    async def tokenize(
        self, application: str, chat: Sequence[Message], caller: Caller
    ) -> Tokenized:
        """The prompt as the model's chat template writes it."""
        ...

    def generate(
        self, application: str, token_ids: Sequence[int], sampling: Sampling, caller: Caller
    ) -> AsyncGenerator[Piece, None]:
        """The completions as they are written. Closing it ends them."""
        ...
