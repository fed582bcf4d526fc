"""PDF by pypdf: the text of each page, put together again to paragraphs and headings.

A PDF has lines at places on a page and nothing else. Large letters make a heading; a gap, or a
short line that ends a sentence, ends a paragraph; a hyphen at the end of a line is taken away.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot, inf
from typing import Any

from pypdf import PasswordType, PdfReader, apply_configuration
from pypdf.errors import DependencyError, LimitReachedError

from services.retrieval.ingest.document import (
    BlockKind,
    ParsedDocument,
    ParseLimits,
    Stopwatch,
    unreadable,
)
from services.retrieval.ingest.extracted import TextBuilder
from services.runtime.errors import InvalidRequest

__all__ = ["parse_pdf"]

_MAX_OPERATIONS = 200_000  # of one page
_HEADING_SCALE = 1.15  # times the size of most letters
_HEADING_LEVELS = 3
_LONGEST_HEADING = 200  # characters
_GAP = 1.4  # times the usual distance of lines
_SHORT_LINE = 0.75  # of the page's longest
_REPEATED_ON = 3  # pages at least, and on half of all: a running head
_SENTENCE_END = (".", "!", "?", ":", "…", ".”", '."', ".)")
_BULLET = re.compile(r"[•‣▪◦∙·–*-]\s|\d{1,3}[.)]\s|\([a-z0-9]{1,3}\)\s")
_PAGE_NUMBER = re.compile(
    r"(?:page\s*)?[-–]?\s*\d{1,4}\s*[-–]?(?:\s*(?:/|of)\s*\d{1,4})?", re.IGNORECASE
)
_SOFT_HYPHEN = "\xad"
_HYPHENATED = re.compile(r"(?:[^\W\d_][-‐]|\xad)$")
_DIGITS = re.compile(r"\d+")
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "\xa0": " ", "\u200b": ""}
)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page. `size` of its letters and `height` above the page's foot are in points."""

    text: str
    size: float
    height: float


def parse_pdf(data: bytes, limits: ParseLimits) -> ParsedDocument:
    """The text by pages. The title is the file's own, else the first heading's.

    Raises `InvalidRequest` when the file is encrypted, broken, beyond the limits, or has no text.
    """
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of each of a broken file's flaws
    with apply_configuration(
        zlib_maximum_output_length=limits.max_unpacked_bytes,
        lzw_maximum_output_length=limits.max_unpacked_bytes,
        run_length_maximum_output_length=limits.max_unpacked_bytes,
        array_based_stream_maximum_output_length=limits.max_unpacked_bytes,
        stream_parsing_work_maximum_count=_MAX_OPERATIONS,
        page_tree_maximum_entries=limits.max_pages,
        disable_legacy_handling=True,
    ):
        try:
            title, pages = _read(data, limits)
        except InvalidRequest:
            raise
        except LimitReachedError as error:
            raise unreadable(f"the PDF is beyond a limit: {error}") from None
        except DependencyError:
            raise unreadable("the PDF is encrypted in a way that cannot be read") from None
        except Exception:  # noqa: BLE001 -- pypdf says that broken files may raise anything
            raise unreadable("the PDF is broken or cut off") from None
    return _document(title, pages, limits)


def _read(data: bytes, limits: ParseLimits) -> tuple[str, list[list[_Line]]]:
    """The title that the file gives itself, and the lines of each page."""
    stopwatch = Stopwatch(limits.max_seconds)
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise unreadable("the PDF is encrypted; a password is needed")
    num_pages = len(reader.pages)
    if num_pages > limits.max_pages:
        raise unreadable(f"the PDF has {num_pages} pages; expected at most {limits.max_pages}")
    pages = []
    num_characters = 0
    for page in reader.pages:
        pages.append(_lines(page, stopwatch))
        num_characters += sum(len(line.text) for line in pages[-1])
        if num_characters > limits.max_characters:
            raise unreadable(f"the PDF has more than {limits.max_characters} characters of text")
    return _own_title(reader), pages


def _own_title(reader: PdfReader) -> str:
    title = reader.metadata.title if reader.metadata is not None else None
    if not isinstance(title, str) or title.startswith("Microsoft Word - "):
        return ""
    return title


def _lines(page: Any, stopwatch: Stopwatch) -> list[_Line]:
    """The lines of a page from top to bottom, as its author drew them."""
    pieces: list[_Line] = []

    def on_operation(_operator: Any, _operands: Any, _cm: Any, _tm: Any) -> None:
        stopwatch.check()

    def on_text(text: str, cm: Sequence[float], tm: Sequence[float], _: Any, size: float) -> None:
        # [a b c d e f] puts (x, y) to (ax + cy + e, bx + dy + f): first the text's matrix, then cm.
        scale = hypot(tm[2], tm[3]) * hypot(cm[2], cm[3])
        height = cm[1] * tm[4] + cm[3] * tm[5] + cm[5]
        pieces.append(_Line(text, round(abs(float(size or 0)) * scale, 1), height))

    stopwatch.check()
    page.extract_text(visitor_operand_before=on_operation, visitor_text=on_text)
    lines: list[_Line] = []
    for piece in pieces:
        for position, text in enumerate(piece.text.split("\n")):
            if position == 0 and lines:
                lines[-1] = _joined_pieces(lines[-1], text, piece)
            else:
                lines.append(replace(piece, text=text))
    return [replace(line, text=_tidy(line.text)) for line in lines if line.text.strip()]


def _joined_pieces(line: _Line, text: str, piece: _Line) -> _Line:
    """A line with the next piece of it. Size and height are those of the first letters."""
    origin = line if line.text.strip() else piece
    return replace(origin, text=line.text + text)


def _tidy(text: str) -> str:
    return " ".join(text.translate(_LIGATURES).split())


def _document(title: str, pages: list[list[_Line]], limits: ParseLimits) -> ParsedDocument:
    builder = TextBuilder(limits)
    levels = _heading_levels(pages)
    running = _running_heads(pages)
    for number, page in enumerate(pages, start=1):
        for kind, lines in _groups(_without_furniture(page, running), levels):
            text = _joined(lines)
            level = levels.get(lines[0].size, 0) if kind is BlockKind.HEADING else 0
            builder.add(kind, text, level=level, title=text if level else "", page=number)
    top = (block.title for block in builder.blocks if block.kind is BlockKind.HEADING)
    return builder.document(
        title or next(top, ""), "application/pdf", "the PDF has no text; it may be a scan"
    )


def _heading_levels(pages: Sequence[Sequence[_Line]]) -> dict[float, int]:
    """The sizes that are clearly larger than most letters', the largest as level 1."""
    letters: Counter[float] = Counter()
    for page in pages:
        for line in page:
            letters[line.size] += len(line.text)
    if not letters:
        return {}
    body = letters.most_common(1)[0][0]
    large = sorted((size for size in letters if size > _HEADING_SCALE * body), reverse=True)
    return {size: min(place, _HEADING_LEVELS) for place, size in enumerate(large, start=1)}


def _edges(page: Sequence[_Line]) -> set[int]:
    """The places of the first and the last line of a page."""
    return {0, len(page) - 1} if page else set()


def _running_heads(pages: Sequence[Sequence[_Line]]) -> frozenset[str]:
    """What stands first or last on most pages, page numbers apart."""
    seen = Counter(
        text for page in pages for text in {_DIGITS.sub("#", page[at].text) for at in _edges(page)}
    )
    enough = max(_REPEATED_ON, len(pages) / 2)
    return frozenset(text for text, count in seen.items() if count >= enough)


def _without_furniture(page: Sequence[_Line], running: frozenset[str]) -> list[_Line]:
    """A page without running heads and page numbers."""
    furniture = {
        at
        for at in _edges(page)
        if _PAGE_NUMBER.fullmatch(page[at].text) or _DIGITS.sub("#", page[at].text) in running
    }
    return [line for at, line in enumerate(page) if at not in furniture]


def _groups(
    page: Sequence[_Line], levels: dict[float, int]
) -> Iterator[tuple[BlockKind, list[_Line]]]:
    """The paragraphs and headings of a page, as runs of lines."""
    width = max((len(line.text) for line in page), default=0)
    leading = _leading(page)
    group: list[_Line] = []
    for line in page:
        if group and _parts(group[-1], line, width, leading, levels):
            yield _kind(group, levels), group
            group = []
        group.append(line)
    if group:
        yield _kind(group, levels), group


def _leading(page: Sequence[_Line]) -> float:
    """The usual distance of two lines in points; infinity where it is not known."""
    gaps = Counter(round(above.height - line.height) for above, line in pairwise(page))
    usual = [(-count, gap) for gap, count in gaps.items() if gap > 0]
    return float(min(usual)[1]) if usual else inf


def _parts(above: _Line, line: _Line, width: int, leading: float, levels: dict[float, int]) -> bool:
    """Whether a new paragraph or heading begins between two lines."""
    if above.size != line.size and (above.size in levels or line.size in levels):
        return True
    if above.height - line.height > _GAP * leading or _BULLET.match(line.text):
        return True
    return len(above.text) < _SHORT_LINE * width and above.text.endswith(_SENTENCE_END)


def _kind(group: Sequence[_Line], levels: dict[float, int]) -> BlockKind:
    length = sum(len(line.text) for line in group)
    is_heading = group[0].size in levels and length <= _LONGEST_HEADING
    return BlockKind.HEADING if is_heading else BlockKind.PARAGRAPH


def _joined(lines: Sequence[_Line]) -> str:
    """The lines of a paragraph as one, words put together again that a line end had parted."""
    text = ""
    for line in lines:
        if _HYPHENATED.search(text) and (text[-1] == _SOFT_HYPHEN or line.text[0].islower()):
            text = text[:-1] + line.text
        else:
            text = f"{text} {line.text}" if text else line.text
    return text.replace(_SOFT_HYPHEN, "")
