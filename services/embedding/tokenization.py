"""Texts and token ids to what a model reads: prompt, content, special tokens, cut to its context.

Works on a `tokenizers.Tokenizer` directly: lengths are wanted before anything is padded. Knows
nothing of torch.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

__all__ = ["InputTokenizer", "TokenizedInput", "TokenizerSettings"]

_PROBES = ("a", "the", "1", ".")


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """What the model's folder says beside the tokenizer itself."""

    max_input_tokens: int  # special tokens included
    truncate_left: bool = False


@dataclass(frozen=True, slots=True)
class TokenizedInput:
    """One input as the model reads it. `prompt_length` counts from the first special token on."""

    ids: list[int]
    prompt_length: int
    truncated: bool

    def digest(self) -> bytes:
        """Equal for equal model inputs, 16 bytes."""
        content = array("q", (self.prompt_length, *self.ids)).tobytes()
        return hashlib.blake2b(content, digest_size=16).digest()


class InputTokenizer:
    """Tokenizes within one model's context. Safe from any thread; lets go of the interpreter lock.

    Raises `ValueError` for a tokenizer that does not put its special tokens around the content.
    """

    def __init__(self, tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix, self._suffix = _special_tokens(self._tokenizer)
        self._settings = settings
        if self.max_content_tokens < 1:
            raise ValueError(f"a context of {settings.max_input_tokens} tokens holds no content")

    @property
    def max_content_tokens(self) -> int:
        """What fits beside the special tokens."""
        return self._settings.max_input_tokens - len(self._prefix) - len(self._suffix)

    @property
    def max_input_tokens(self) -> int:
        return self._settings.max_input_tokens

    @property
    def vocab_size(self) -> int:
        """Token ids are below it, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def content_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, whole and without special tokens."""
        # What a batch saves in time it must not cost in memory: offsets are thrown away at once.
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt with the special tokens before it."""
        return len(self._prefix) + len(self.content_ids([prompt])[0]) if prompt else 0

    def build(self, content_ids: Sequence[int], prompt_length: int = 0) -> TokenizedInput:
        """Content with its special tokens, cut where it is longer than the context."""
        limit = self.max_content_tokens
        truncated = len(content_ids) > limit
        if truncated:
            start = len(content_ids) - limit if self._settings.truncate_left else 0
            content_ids = content_ids[start : start + limit]
        return TokenizedInput(
            [*self._prefix, *content_ids, *self._suffix], prompt_length, truncated
        )


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after the content of a single text."""
    for probe in _PROBES:
        content = tokenizer.encode(probe, add_special_tokens=False).ids
        whole = tokenizer.encode(probe, add_special_tokens=True).ids
        for start in range(len(whole) - len(content) + 1):
            end = start + len(content)
            if content and whole[start:end] == content:
                return whole[:start], whole[end:]
    raise ValueError("the tokenizer does not put its special tokens around the content")
