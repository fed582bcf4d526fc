"""What calls of the embedding service return."""

from __future__ import annotations

from dataclasses import dataclass

from orrery.results.common import Timing, Usage

__all__ = [
    "EmbedResult",
    "Embedding",
    "EmbeddingLoad",
    "EmbeddingModelInfo",
    "RerankResult",
    "RerankedPassage",
]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one input.

    Attributes:
        values: Of length 1 where the model normalises.
        num_tokens: Tokens read, special tokens included.
        truncated: Tokens beyond the model's context were left out.
        cached: The vector came from the service's cache.
    """

    values: tuple[float, ...]
    num_tokens: int
    truncated: bool
    cached: bool


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The embeddings of all inputs, in their order."""

    request_id: str
    model: str
    embeddings: tuple[Embedding, ...]
    usage: Usage
    timing: Timing

    @property
    def vectors(self) -> tuple[tuple[float, ...], ...]:
        """The vectors alone: [num_inputs, dimensions]."""
        return tuple(embedding.values for embedding in self.embeddings)


@dataclass(frozen=True, slots=True)
class RerankedPassage:
    """A passage's score. `index` says which of the passages that were sent."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class RerankResult:
    """Passages by their relevance, best first.

    `method` is `cross_encoder` or `bi_encoder`, and `model` the name of the model that scored.
    """

    request_id: str
    model: str
    results: tuple[RerankedPassage, ...]
    method: str
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class EmbeddingModelInfo:
    """A served embedding model. `reranker` is empty where no cross-encoder is configured."""

    model: str
    dimensions: int
    max_input_tokens: int
    max_batch_inputs: int
    max_input_bytes: int
    normalized: bool
    dtype: str
    weight_hash: str
    aliases: tuple[str, ...]
    reranker: str
    created_s: int


@dataclass(frozen=True, slots=True)
class EmbeddingLoad:
    """What an embedding service is doing. The cache's counts are since its start."""

    num_running: int
    num_waiting_inputs: int
    num_running_inputs: int
    cache_hits: int
    cache_misses: int
    cache_available: bool
    resident_bytes: int
