"""Inputs of a request to what the model reads, within the limits; refuses what does not fit.

Sizes are checked before any tokenizing, and many or long texts are tokenized in a thread, where the
tokenizer lets go of the interpreter lock. Knows nothing of gRPC or protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.embedding.config import RequestLimitsConfig
from services.embedding.encoder import Encoder
from services.embedding.tokenization import TokenizedInput
from services.runtime.errors import ContextTooLong, InvalidRequest
from services.runtime.message_size import MAX_CONTENT_BYTES
from services.runtime.offload import offload_if_large

__all__ = ["Input", "InputReader", "Purpose", "TextInput", "TokenInput"]


class Purpose(StrEnum):
    """What a text is embedded for."""

    NONE = "none"  # as it is
    QUERY = "query"
    PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class TextInput:
    text: str


@dataclass(frozen=True, slots=True)
class TokenInput:
    """Ids of the model's own vocabulary, without special tokens."""

    token_ids: Sequence[int]


Input = TextInput | TokenInput


class InputReader:
    """Reads inputs for one model. Every refusal names the field."""

    def __init__(self, encoder: Encoder, limits: RequestLimitsConfig) -> None:
        self._tokenizer = encoder.tokenizer
        self._vocab_size = encoder.vocab_size
        self._limits = limits
        # As many as have all their vectors in one answer.
        self.max_inputs = min(limits.max_inputs, MAX_CONTENT_BYTES // (4 * encoder.dimensions))
        self._prompts = {
            Purpose.NONE: "",
            Purpose.QUERY: encoder.query_prompt,
            Purpose.PASSAGE: encoder.passage_prompt,
        }
        self._prompt_ids = {
            purpose: self._tokenizer.content_ids([prompt])[0]
            for purpose, prompt in self._prompts.items()
        }
        self._prompt_lengths = {
            # Where pooling takes in the prompt, its length makes no difference to the vector.
            purpose: 0 if encoder.counts_prompt else self._tokenizer.prompt_length(prompt)
            for purpose, prompt in self._prompts.items()
        }

    def check_count(self, count: int, field: str) -> None:
        """Raises `InvalidRequest`."""
        if not 1 <= count <= self.max_inputs:
            raise InvalidRequest(
                f"{field}: expected 1 to {self.max_inputs} in a call, got {count}", field=field
            )

    def check_text(self, text: str, field: str) -> None:
        """Size only. Raises `InvalidRequest`."""
        limit = self._limits.max_input_bytes
        # A character takes one to four bytes; only what may be too long is encoded to see.
        if 4 * len(text) > limit and len(text.encode()) > limit:
            raise InvalidRequest(f"{field}: expected at most {limit} bytes of UTF-8", field=field)
        if not text.strip():
            raise InvalidRequest(f"{field}: expected a text that is not empty", field=field)

    def check_pairs(self, query: str, passages: Sequence[str]) -> int:
        """The characters of all pairs. Raises `InvalidRequest` where they are too many."""
        num_chars = sum(map(len, passages)) + len(query) * len(passages)
        if num_chars > self._limits.max_pair_chars:
            raise InvalidRequest(
                f"passages: with the query before each they have {num_chars} characters; expected "
                f"at most {self._limits.max_pair_chars}",
                field="passages",
            )
        return num_chars

    async def read(
        self,
        inputs: Sequence[Input],
        fields: Sequence[str],
        purpose: Purpose,
        *,
        truncate: bool | None,
    ) -> list[TokenizedInput]:
        """What the model reads of each input; `fields` are their names in errors.

        `truncate`: whether one that is too long is cut; None: the caller has no such choice.

        Raises:
            InvalidRequest: An input is empty, too large, or has an id out of the vocabulary.
            ContextTooLong: An input is longer than the model's context, and not to be cut.
        """
        num_chars = 0
        for item, field in zip(inputs, fields, strict=True):
            if isinstance(item, TextInput):
                self.check_text(item.text, field)
                num_chars += len(item.text)
            else:
                self._check_token_ids(item.token_ids, field)

        def tokenize() -> list[TokenizedInput]:
            return self._tokenize(inputs, fields, purpose, truncate)

        return await offload_if_large(num_chars, tokenize)

    def _tokenize(
        self,
        inputs: Sequence[Input],
        fields: Sequence[str],
        purpose: Purpose,
        truncate: bool | None,
    ) -> list[TokenizedInput]:
        prompt, prompt_length = self._prompts[purpose], self._prompt_lengths[purpose]
        texts = [prompt + item.text for item in inputs if isinstance(item, TextInput)]
        texts_ids = iter(self._tokenizer.content_ids(texts))
        read = []
        for item, field in zip(inputs, fields, strict=True):
            if isinstance(item, TextInput):
                content: Sequence[int] = next(texts_ids)
            else:
                content = [*self._prompt_ids[purpose], *item.token_ids]
            if len(content) <= len(self._prompt_ids[purpose]):
                raise InvalidRequest(f"{field}: expected a text with tokens", field=field)
            if not truncate:
                advice = "" if truncate is None else "; set truncate to have it cut"
                self._check_length(len(content), field, advice)
            read.append(self._tokenizer.build(content, prompt_length))
        return read

    def _check_length(self, num_content: int, field: str, advice: str) -> None:
        limit = self._tokenizer.max_content_tokens
        if num_content > limit:
            raise ContextTooLong(
                f"{field}: {num_content} tokens, but the model reads at most {limit} beside its "
                f"special tokens{advice}",
                field=field,
            )

    def _check_token_ids(self, token_ids: Sequence[int], field: str) -> None:
        if not 1 <= len(token_ids) <= self._limits.max_input_bytes:
            raise InvalidRequest(
                f"{field}: expected 1 to {self._limits.max_input_bytes} token ids, "
                f"got {len(token_ids)}",
                field=field,
            )
        worst = max(token_ids)
        if worst >= self._vocab_size or min(token_ids) < 0:
            raise InvalidRequest(
                f"{field}: token ids are 0 to {self._vocab_size - 1}, got {worst}", field=field
            )
