"""What calls of the embedding service return."""

from __future__ import annotations

from dataclasses import dataclass

from orrery.results.common import Timing, Usage

__all__ = [
    "Classification",
    "ClassifyResult",
    "EmbedResult",
    "Embedding",
    "EmbeddingLoad",
    "EmbeddingModelInfo",
    "LabelScore",
    "RerankResult",
    "RerankedPassage",
    "SimilarityResult",
]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one input.

    Attributes:
        values: Of length 1 where the model normalises.
        num_tokens: Tokens read, special tokens included; 0 of a picture.
        truncated: Tokens beyond the model's context were left out.
        cached: The vector came from the service's cache.
    """

    values: tuple[float, ...]
    num_tokens: int
    truncated: bool
    cached: bool


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The embeddings of all inputs, in their order. Pictures use no tokens."""

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
class LabelScore:
    """How well a label fits a picture.

    Attributes:
        index: Which of the labels.
        probability: Softmax over all labels.
        similarity: Cosine of the picture and the label in its templates.
    """

    index: int
    label: str
    probability: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels of one picture, best first."""

    scores: tuple[LabelScore, ...]

    @property
    def label(self) -> str:
        """The best."""
        return self.scores[0].label


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """The labels of all pictures, in their order."""

    request_id: str
    model: str
    results: tuple[Classification, ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class SimilarityResult:
    """Cosines between two lists: a row for each on the left, in it one for each on the right."""

    request_id: str
    model: str
    rows: tuple[tuple[float, ...], ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class EmbeddingModelInfo:
    """A served embedding model.

    Attributes:
        reranker: Empty where no cross-encoder is configured.
        modalities: What it embeds: `text`, `image`.
        max_image_bytes: Of one picture; `max_image_pixels` once it is decoded; 0 = it embeds none.
        label_templates: Those of `classify` where the call has none.
    """

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
    modalities: tuple[str, ...]
    max_image_bytes: int
    max_image_pixels: int
    max_batch_images: int
    label_templates: tuple[str, ...]
    max_labels: int


@dataclass(frozen=True, slots=True)
class EmbeddingLoad:
    """What one replica of an embedding service is doing. All that is counted is since its start."""

    num_running: int
    num_waiting_inputs: int
    num_running_inputs: int
    cache_hits: int
    cache_misses: int
    cache_available: bool
    resident_bytes: int
    process_id: int
    num_inputs_done: int
    num_tokens_done: int
