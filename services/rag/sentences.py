"""Sentences and words of a text, as spans of its characters. Knows no language in depth.

A sentence ends at `.`, `!` or `?` before white space and a beginning that is not small, at an empty
line, and at a line break before a list item, a heading or a table row. A single line break within a
paragraph ends nothing: in PDF it is where the page's width was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Span", "Word", "names", "sentences", "words"]

# Behind these a full stop ends no sentence.
_ABBREVIATIONS = frozenset((
    "al", "approx", "ca", "cf", "dr", "e.g", "eg", "etc", "fig", "figs", "i.e", "ie", "inc", "jr",
    "ltd", "mr", "mrs", "ms", "no", "nos", "p", "pp", "prof", "sr", "st", "viz", "vol", "vs",
))  # fmt: skip
_BOUNDARY = re.compile(
    r"""(?P<stop>[.!?]+["'”’)\]]*)(?=\s+["'“‘(\[]*[^\sa-z]|\s*\Z)  # end of a sentence
      | \n[ \t]*(?=\n)                                    # an empty line
      | \n(?=[ \t]*(?:[-*•>|]|\#{1,6}\s|\d{1,3}[.)]\s))   # a list item, a heading, a table row
      | (?<=\|)[ \t]*\n                                   # the end of a table row
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"([\w.]+)\Z")
_WORD = re.compile(r"\w+(?:[.,:'’]\w+)*")
_POSSESSIVE = re.compile(r"['’]s?\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `[start, end)`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is compared: without case, possessive and plural ending."""

    key: str
    start: int
    end: int


def sentences(text: str) -> list[Span]:
    """The sentences in order, without the white space around them. None is empty."""
    spans: list[Span] = []
    begin = 0
    for boundary in _BOUNDARY.finditer(text):
        if boundary["stop"] and _is_abbreviation(text, boundary.start(), boundary["stop"]):
            continue
        _add(spans, text, begin, boundary.end())
        begin = boundary.end()
    _add(spans, text, begin, len(text))
    return spans


def words(text: str, span: Span | None = None) -> list[Word]:
    """The words of the text, or of a span of it, in order."""
    span = span or Span(0, len(text))
    return [
        Word(_key(match[0]), match.start(), match.end())
        for match in _WORD.finditer(text, span.start, span.end)
    ]


def names(question: str) -> set[str]:
    """The words, but the first, that begin with a capital or a digit, as they are compared."""
    return {
        word.key
        for word in words(question)[1:]
        if question[word.start].isupper() or question[word.start].isdigit()
    }


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    visible = piece.strip()
    if visible:
        first = start + len(piece) - len(piece.lstrip())
        spans.append(Span(first, first + len(visible)))


def _is_abbreviation(text: str, stop_start: int, stop: str) -> bool:
    if stop != "." or not text[stop_start + 1 :].strip():
        return False
    word = _LAST_WORD.search(text, max(0, stop_start - 16), stop_start)
    if word is None:
        return False
    # A single capital is an initial: "J. Smith".
    return word[1].casefold() in _ABBREVIATIONS or (len(word[1]) == 1 and word[1].isupper())


def _key(word: str) -> str:
    key = _POSSESSIVE.sub("", word.casefold())
    return key[:-1] if len(key) > 3 and key.endswith("s") and not key.endswith("ss") else key
