"""Tokens of the embedding model: its tokenizer, and where in a text its tokens begin.

Knows nothing of documents and chunks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

__all__ = ["TokenIndex", "count_tokens", "load_tokenizer"]

# A long run of letters is one unknown token to many tokenizers, and spaces are none. So that a
# chunk cannot grow without bound, this many characters count as a token at least.
MAX_CHARACTERS_PER_TOKEN = 16
_SLICE = 16_384  # characters encoded as one text: what an encoding holds is ~20 times the text
_SLICES_AT_ONCE = 8
_TEXTS_AT_ONCE = 256


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer of a model's folder, neither truncating nor padding.

    Raises `FileNotFoundError` when the folder has no `tokenizer.json`.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; chunking needs the model's fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def count_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens of each text, without special ones; at least what its characters count for."""
    counts: list[int] = []
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = list(texts[first : first + _TEXTS_AT_ONCE])
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        counts += [
            max(len(encoding), -(-len(text) // MAX_CHARACTERS_PER_TOKEN))
            for encoding, text in zip(encodings, batch, strict=True)
        ]
    return counts


class TokenIndex:
    """Where the tokens of one text begin, found by encoding it once.

    Sizes are those of the pieces in place; a piece that is encoded by itself may have a few more
    where it begins or ends inside a word.
    """

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self._starts = array("q")
        slices = _slices(text)
        for first in range(0, len(slices), _SLICES_AT_ONCE):
            batch = slices[first : first + _SLICES_AT_ONCE]
            pieces = [text[start:end] for start, end in batch]
            encodings = tokenizer.encode_batch(pieces, add_special_tokens=False)
            for (start, _), encoding in zip(batch, encodings, strict=True):
                self._starts.extend(start + offset for offset, _ in encoding.offsets)

    def size(self, start: int, end: int) -> int:
        """How many tokens begin in `[start, end)`; at least what its characters count for."""
        num_tokens = bisect_left(self._starts, end) - bisect_left(self._starts, start)
        return max(num_tokens, -(-(end - start) // MAX_CHARACTERS_PER_TOKEN))

    def furthest(self, start: int, num_tokens: int) -> int:
        """The largest `end` with `size(start, end) <= num_tokens`."""
        limit = start + num_tokens * MAX_CHARACTERS_PER_TOKEN
        token = bisect_left(self._starts, start) + num_tokens
        return min(self._starts[token], limit) if token < len(self._starts) else limit

    def nearest(self, end: int, num_tokens: int) -> int:
        """The smallest `start` with `size(start, end) <= num_tokens`."""
        limit = max(0, end - num_tokens * MAX_CHARACTERS_PER_TOKEN)
        token = bisect_left(self._starts, end) - num_tokens
        return max(self._starts[token], limit) if token > 0 else limit


def _slices(text: str) -> list[tuple[int, int]]:
    """The text in slices that end at white space where there is some."""
    slices = []
    start = 0
    while start < len(text):
        end = min(len(text), start + _SLICE)
        if end < len(text):
            space = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
            end = space + 1 if space > start else end
        slices.append((start, end))
        start = end
    return slices
