"""Sentences and words of a text, as spans of its characters. Knows no language in depth.

A sentence ends at `.`, `!` or `?` before white space and a beginning that is not small, at their
full-width forms, at an empty line, and at a line break before a list item, a heading or a table
row. A single line break within a paragraph ends nothing: in PDF it is where the page's width was.
Lines end with LF, CR LF or CR. Where a script puts no space between words each character stands for
one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Span", "Word", "names", "sentences", "words"]

# Behind these a full stop ends no sentence.
_ABBREVIATIONS = frozenset((
    "al", "approx", "ca", "cf", "dr", "e.g", "eg", "etc", "fig", "figs", "i.e", "ie", "inc", "jr",
    "ltd", "mr", "mrs", "ms", "no", "nos", "p", "pp", "prof", "sr", "st", "viz", "vol", "vs",
))  # fmt: skip
_LINE_END = r"(?:\r\n|\n|\r(?!\n))"
_BOUNDARY = re.compile(
    rf"""(?P<stop>[.!?]+["'”’)\]]*)(?=\s+["'“‘(\[]*[^\sa-z]|\s*\Z)  # end of a sentence
      | [。！？]+["”’」』）)]*                          # the same, with no space after it
      | {_LINE_END}[ \t]*(?=[\r\n])                        # an empty line
      # A list item, a heading, a table row.
      | {_LINE_END}(?=[ \t]*(?:[-*•>|]|\#{{1,6}}\s|\d{{1,3}}[.)]\s))
      | (?<=\|)[ \t]*{_LINE_END}                           # the end of a table row
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"([\w.]+)\Z")
# Thai, Lao, Burmese, Khmer; kana and ideographs.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Combining marks: PDF readers and file systems write an accent as a character of its own.
_LETTERS = rf"(?:[^\W{_UNSPACED}][\u0300-\u036f]*)+"
_WORD = re.compile(rf"{_LETTERS}(?:[.,:'’]{_LETTERS})*|[{_UNSPACED}]")
_POSSESSIVE = re.compile(r"['’]s?\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `[start, end)`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is compared: without case, possessive, plural ending and kinds of accents."""

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
        Word(key, match.start(), match.end())
        for match in _WORD.finditer(text, span.start, span.end)
        if (key := _key(match[0]))
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
    plain = word if word.isascii() else unicodedata.normalize("NFKC", word)
    key = _POSSESSIVE.sub("", plain.casefold())
    return key[:-1] if len(key) > 3 and key.endswith("s") and not key.endswith("ss") else key
