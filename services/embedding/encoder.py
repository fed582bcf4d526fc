"""What the service asks of a model: texts, and perhaps pictures, to vectors in one space.

Two kinds stand behind it: `text_encoder.py`, any sentence-transformers model of texts, and
`clip_encoder.py`, a CLIP model. Knows neither, nor batching, caching or gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from services.embedding.preprocessing import Pixels, Preprocessing
from services.embedding.tokenization import InputTokenizer, TokenizedInput

__all__ = ["Encoder", "EncoderOptions", "PictureEncoder", "Vectors", "pad", "unit_length"]

# oneDNN compiles kernels for each shape that it meets, and keeps them: few widths are few kernels.
_WIDTH_STEP = 8

Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How to load a model. None: as its folder says."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "cpu"
    max_input_tokens: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    normalize: bool = False


class Encoder(Protocol):
    """A loaded model. `embed` is for one thread at a time."""

    @property
    def weight_hash(self) -> str:
        """Of all that decides the vectors, in hex."""

    @property
    def dtype(self) -> str:
        """What it computes in: "float32" or "bfloat16"."""

    @property
    def dimensions(self) -> int: ...

    @property
    def normalized(self) -> bool:
        """Whether every vector has length 1."""

    @property
    def tokenizer(self) -> InputTokenizer: ...

    @property
    def vocab_size(self) -> int:
        """Token ids that callers bring are below it."""

    @property
    def query_prompt(self) -> str:
        """What stands before a query; "": nothing."""

    @property
    def passage_prompt(self) -> str: ...

    @property
    def counts_prompt(self) -> bool:
        """Whether pooling takes in the prompt's tokens; otherwise it must be told their number."""

    @property
    def pictures(self) -> PictureEncoder | None:
        """The side for pictures; None where the model embeds texts alone."""

    def embed(self, inputs: Sequence[TokenizedInput]) -> Vectors:
        """One vector for each, `[num_inputs, dimensions]`."""


class PictureEncoder(Protocol):
    """Pictures to vectors beside those of the texts. `embed` is for the texts' thread."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes what `embed` takes; safe from any thread."""

    @property
    def num_tokens(self) -> int:
        """What the model reads of one picture: its patches, and the class token."""

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by before the softmax over labels."""

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        """One vector for each, `[num_pictures, dimensions]`."""


def pad(
    rows: Sequence[Sequence[int]], value: int, *, left: bool, most: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of different lengths as one array, and the mask of what is no padding.

    Both `[num_rows, width]`: the longest row's, rounded up where that is not beyond `most`.
    """
    longest = max(map(len, rows))
    longest = max(longest, min(most, longest + -longest % _WIDTH_STEP))
    padded = np.full((len(rows), longest), value, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(0, len(row))
        padded[number, place] = row
        mask[number, place] = 1
    return padded, mask


def unit_length(vectors: Vectors) -> Vectors:
    """Each row over its Euclidean norm; a row of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(norms, 1e-12)
    return scaled
