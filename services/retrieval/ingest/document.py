"""What every format's parser returns, and the limits it keeps.

Knows nothing of formats, of chunks or of tokens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from services.retrieval.types import Metadata
from services.runtime.errors import InvalidRequest

__all__ = ["Block", "BlockKind", "ParseLimits", "ParsedDocument", "Stopwatch", "unreadable"]


def unreadable(reason: str) -> InvalidRequest:
    """The error of a file that cannot be read: `reason` is told to whoever sent it."""
    return InvalidRequest(reason, field="file")


class BlockKind(StrEnum):
    """What a block is. It decides where chunks may begin and end."""

    HEADING = "heading"  # of `level` 1 to 6
    PARAGRAPH = "paragraph"  # prose, a list, a quotation
    CODE = "code"
    TABLE = "table"
    RECORD = "record"  # a row, a line, an object: a small document of its own


@dataclass(frozen=True, slots=True)
class Block:
    """Characters `[start, end)` of the document's text, neither beginning nor ending with space.

    Lines and pages count from 1 and are the file's, `line_end` included; 0 = not known. `title` of
    a heading is its words without markup, of a record its own title. `metadata` is a record's.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    title: str = ""
    line_start: int = 0
    line_end: int = 0
    page: int = 0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A file's text and its structure. `blocks` are in order and do not overlap.

    `text_is_file`: `text` is the decoded file, so that offsets and lines computed from them are
    the file's own. Otherwise it was extracted, and lines are known from the blocks alone, if at
    all. `metadata` is what the file says of itself (a Markdown file's front matter).
    """

    title: str  # "" = the file does not say
    text: str
    blocks: tuple[Block, ...]
    media_type: str
    text_is_file: bool
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What a file may cost. Every limit refuses the file by name; nothing is cut off in silence."""

    max_bytes: int = 8 * 2**20
    max_characters: int = 16 * 2**20  # of text, decoded or extracted
    max_blocks: int = 200_000  # headings, paragraphs, rows...
    max_pages: int = 5_000  # PDF
    max_depth: int = 200  # elements in elements: HTML
    max_fields: int = 512  # columns of a row, members of an object
    max_unpacked_bytes: int = 64 * 2**20  # of a DOCX, and of each stream of a PDF
    max_unpacked_ratio: int = 200  # unpacked bytes per packed byte, of each part of a DOCX
    max_archive_entries: int = 4_096  # parts of a DOCX
    max_seconds: float = 30.0  # looked at between the parts of a file


class Stopwatch:
    """Stops a parser that takes too long. `check` is cheap: call it between a file's parts."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._end_s = time.monotonic() + max_seconds

    def check(self) -> None:
        """Raises `InvalidRequest` when the time is over."""
        if time.monotonic() > self._end_s:
            raise unreadable(f"reading the file took more than {self._max_seconds:g} s")
