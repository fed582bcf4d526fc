"""What each token id stands for in bytes. Knows nothing of encoding, chats or streams.

A `tokenizers` decoder turns a whole list of tokens into text, which is no use for a stream and
says nothing of a single token. The decoders of decoder-only models all come down to bytes per
token plus spaces to drop at the very start of a text, so that is what is read off them here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from services.engine.errors import ConfigError

__all__ = ["Vocabulary"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """The bytes of each token of a `tokenizers.Tokenizer`, in its decoder's terms.

    Byte-level BPE (GPT-2, LLaMA 3, Qwen): each character of a token is one byte, by GPT-2's
    printable alphabet. SentencePiece style (LLaMA 2, Mistral): the text of the token with "▁" as
    space, or one byte for a token such as `<0x0A>`. An added token is its own text.

    Joining the bytes of a text's ids gives the text's bytes, after `num_leading_spaces` spaces
    that the tokenizer put before the text and that decoding drops again.

    Raises `ConfigError` for a decoder that does not come down to bytes per token.
    """

    def __init__(self, backend: BackendTokenizer) -> None:
        self._backend = backend
        self._byte_level = False
        self._byte_fallback = False
        self._prefix = ""
        self._replacements: list[tuple[str, str]] = []
        self.num_leading_spaces = 0
        self._read_decoder()
        added = backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self.special_token_ids = frozenset(i for i, token in added.items() if token.special)
        self._alphabet = _byte_level_alphabet()
        self._cache: dict[int, bytes] = {}

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; empty for an id that no token has."""
        data = self._cache.get(token_id)
        if data is None:
            data = self._cache[token_id] = self._compute(token_id)
        return data

    def join(self, token_ids: Iterable[int], skip_special_tokens: bool) -> bytes:
        """The bytes of the tokens in a row, leading spaces included."""
        if skip_special_tokens:
            special = self.special_token_ids
            return b"".join(self.token_bytes(i) for i in token_ids if i not in special)
        return b"".join(map(self.token_bytes, token_ids))

    def _compute(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return (self._prefix + added).encode()
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if self._byte_level:
            try:
                return bytes(self._alphabet[character] for character in token)
            except KeyError:  # a token that was never byte-encoded stands for itself
                return token.encode()
        for old, new in self._replacements:
            token = token.replace(old, new)
        match = _BYTE_TOKEN.fullmatch(token) if self._byte_fallback else None
        if match:
            return bytes([int(match[1], 16)])
        return (self._prefix + token).encode()

    def _read_decoder(self) -> None:
        if self._backend.decoder is None:  # `tokenizers` then joins the tokens with spaces
            self._prefix, self.num_leading_spaces = " ", 1
            return
        decoder = json.loads(self._backend.decoder.__getstate__())
        parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
        for part in parts:
            if not self._read_part(part):
                raise ConfigError(
                    "tokenizer.json",
                    f"its decoder {json.dumps(part)} is not supported; expected ByteLevel, "
                    "Metaspace, or a sequence of Replace, ByteFallback, Fuse and a leading Strip",
                )

    def _read_part(self, part: dict[str, Any]) -> bool:
        """Take in one step of the decoder; False if it is not understood."""
        match part:
            case {"type": "ByteLevel"}:
                self._byte_level = True
            case {"type": "ByteFallback"}:
                self._byte_fallback = True
            case {"type": "Fuse"}:
                pass
            case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                self._replacements.append((old, new))
            case {"type": "Strip", "content": " ", "start": start, "stop": 0}:
                self.num_leading_spaces = start
            case {"type": "Metaspace", "replacement": old}:
                self._replacements.append((old, " "))
                self.num_leading_spaces = int(part.get("prepend_scheme", "always") != "never")
            case _:
                return False
        return True


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's reversible map from characters to bytes (Radford et al., 2019, section 2.2).

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, are the
    characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return alphabet
