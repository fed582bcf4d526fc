"""Which kind of token a token is, by its text: what experts may specialise in."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

__all__ = ["TOKEN_CLASSES", "token_classes"]

_NO_CHARACTER = "\ufffd"  # where a token is a part of one

TOKEN_CLASSES: Final = ("word", "word_part", "number", "punctuation", "space", "other")


def token_classes(texts: Sequence[str]) -> list[str]:
    """Of each token of a text one of `TOKEN_CLASSES`. An empty text is "other", as a special
    token's is; a "word_part" goes on with the word of the token before.
    """
    found = []
    before = ""
    for text in texts:
        found.append(_token_class(text, before))
        before = text
    return found


def _token_class(text: str, before: str) -> str:
    content = text.strip()
    if not content:
        return "space" if text else "other"
    if _NO_CHARACTER in content:
        return "other"
    kinds = {unicodedata.category(character)[0] for character in content}
    if "L" in kinds:
        goes_on = before[-1:].isalpha() and not text[0].isspace()
        return "word_part" if goes_on else "word"
    if "N" in kinds:
        return "number"
    return "punctuation" if kinds <= {"P", "S"} else "other"
