"""From sampled tokens to text, one token at a time. Knows nothing of the engine's step.

    token ids -> bytes -> characters -> text that is certainly not part of a stop string

Three things may be held back between two tokens: the bytes of an unfinished character, spaces at
the very start of a text that the tokenizer added, and the beginning of a possible stop string.
"""

from __future__ import annotations

import codecs
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.engine.request import SamplingParams
from services.engine.stop_strings import StopStrings

__all__ = ["DetokenizedDelta", "IncrementalDetokenizer"]

_MAX_UTF8_BYTES = 4
_FIRST_SURROGATE = b"\xed\xa0"  # its first two bytes, were it encoded
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _TokenBytes(Protocol):
    """What is needed of a tokenizer."""

    @property
    def num_leading_spaces(self) -> int: ...

    @property
    def special_token_ids(self) -> frozenset[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DetokenizedDelta:
    """The text that a token added for certain, and the stop string that it completed, if any."""

    text: str
    stop_string: str | None = None


class _Utf8Decoder(codecs.BufferedIncrementalDecoder):
    """Python's decoder, but for the first two bytes of a surrogate half.

    They are no beginning of a character, and in whole texts both become U+FFFD at once. Python's
    own waits for a third byte, which only its error handler "surrogatepass" has a use for.
    """

    def _buffer_decode(self, data: Any, errors: str, final: bool) -> tuple[str, int]:
        text, consumed = codecs.utf_8_decode(data, errors, final)
        held = data[consumed:]
        if len(held) == 2 and held >= _FIRST_SURROGATE and held[0] == _FIRST_SURROGATE[0]:
            return text + 2 * _REPLACEMENT, len(data)
        return text, consumed


class IncrementalDetokenizer:
    """The text of one completion, as it grows.

    The concatenated deltas and `flush()` are the decoded prompt and output minus the decoded
    prompt, cut at the first stop string. Bytes that are not UTF-8 become U+FFFD once that is
    certain; a character still unfinished at the end is dropped.

    The caller pushes each output token in order, except one that ends the completion and is not
    to be shown (end of sequence, a stop token). After a stop string was reported, nothing more is
    to be pushed.
    """

    def __init__(
        self, tokenizer: _TokenBytes, prompt_token_ids: Sequence[int], params: SamplingParams
    ) -> None:
        self._tokenizer = tokenizer
        skipped = tokenizer.special_token_ids if params.skip_special_tokens else frozenset()
        self._skipped = skipped
        self._min_tokens = params.min_tokens
        self._num_tokens = 0
        self._utf8 = _Utf8Decoder("replace")
        self._spaces_to_drop = tokenizer.num_leading_spaces
        self._stops = StopStrings(params.stop, params.include_stop_in_output)
        self._resumes_character = False
        self._read_prompt(prompt_token_ids)

    def push(self, token_id: int) -> DetokenizedDelta:
        """Take in the next output token; return what is now certain."""
        self._num_tokens += 1
        if token_id in self._skipped:
            return DetokenizedDelta("")
        text = self._decode(self._tokenizer.token_bytes(token_id))
        if not self._stops:
            return DetokenizedDelta(text)
        emitted, stop = self._stops.feed(text, may_stop=self._num_tokens >= self._min_tokens)
        return DetokenizedDelta(emitted, stop)

    def flush(self) -> str:
        """End the text: what was held back as a possible stop string. Empty after a stop."""
        return self._stops.flush()

    def fork(self) -> IncrementalDetokenizer:
        """An independent copy at the same point, for another completion or beam."""
        other = copy.copy(self)
        other._utf8 = _Utf8Decoder("replace")
        other._utf8.setstate(self._utf8.getstate())
        other._stops = self._stops.fork()
        return other

    def _decode(self, data: bytes) -> str:
        text = self._utf8.decode(data)
        if not text:
            return text
        if self._resumes_character:
            # The prompt's text ends in U+FFFD for its unfinished character. If the output does
            # not finish it after all, that U+FFFD has been told already.
            text = text.removeprefix(_REPLACEMENT)
            self._resumes_character = False
        while self._spaces_to_drop and text:
            if text[0] != " ":
                self._spaces_to_drop = 0
                break
            text = text[1:]
            self._spaces_to_drop -= 1
        return text

    def _read_prompt(self, token_ids: Sequence[int]) -> None:
        """Start where the prompt ends: past its leading spaces, perhaps inside a character."""
        if self._spaces_to_drop:
            for token_id in token_ids:
                if token_id not in self._skipped:
                    self._decode(self._tokenizer.token_bytes(token_id))
                if not self._spaces_to_drop:
                    break
        tail = b""
        for token_id in reversed(token_ids):
            if token_id not in self._skipped:
                tail = self._tokenizer.token_bytes(token_id) + tail
            if len(tail) >= _MAX_UTF8_BYTES:
                break
        # A lead byte starts a character whatever stands before it.
        starts = [i for i, byte in enumerate(tail) if byte >= 0xC0]
        self._utf8.reset()
        if starts:
            self._utf8.decode(tail[starts[-1] :])
        self._resumes_character = bool(self._utf8.getstate()[0])
        if self._resumes_character:
            self._spaces_to_drop = 0
