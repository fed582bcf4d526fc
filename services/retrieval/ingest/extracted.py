"""Builds the text of a document that is extracted from its file: HTML, PDF, DOCX, rows.

Knows nothing of formats.
"""

from __future__ import annotations

import re

from services.retrieval.ingest.document import (
    Block,
    BlockKind,
    ParsedDocument,
    ParseLimits,
    unreadable,
)
from services.retrieval.types import Metadata

__all__ = ["TextBuilder", "clean", "shortened"]

_LONGEST_TITLE = 256  # characters

# Control characters, and halves of characters: no text that can be sent on.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with U+FFFD for what is no character."""
    return _UNPRINTABLE.sub("\ufffd", text)


def shortened(title: str) -> str:
    """A title as it is kept with every chunk under it: of a file's, the beginning will do."""
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"


class TextBuilder:
    """Gathers blocks one after another, an empty line between them; keeps the limits."""

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    @property
    def blocks(self) -> list[Block]:
        return self._blocks

    def add(
        self,
        kind: BlockKind,
        text: str,
        *,
        level: int = 0,
        title: str = "",
        lines: tuple[int, int] = (0, 0),
        page: int = 0,
        metadata: Metadata | None = None,
        separator: str = "\n\n",
    ) -> None:
        """Adds a block, unless it is nothing but white space. Raises `InvalidRequest`."""
        text = clean(text).strip()
        if not text:
            return
        if self._pieces:
            self._pieces.append(separator)
            self._length += len(separator)
        start, end = self._length, self._length + len(text)
        self._pieces.append(text)
        self._length = end
        first, last = lines
        self._blocks.append(
            Block(kind, start, end, level, clean(title), first, last, page, metadata or {})
        )
        self._check()

    def document(self, title: str, media_type: str, nothing: str) -> ParsedDocument:
        """The whole. Raises `InvalidRequest` with the reason `nothing` when there is no text."""
        if not self._blocks:
            raise unreadable(nothing)
        text = "".join(self._pieces)
        title = " ".join(clean(title).split())
        return ParsedDocument(title, text, tuple(self._blocks), media_type, text_is_file=False)

    def _check(self) -> None:
        if self._length > self._limits.max_characters:
            raise unreadable(
                f"the file has more than {self._limits.max_characters} characters of text"
            )
        if len(self._blocks) > self._limits.max_blocks:
            raise unreadable(f"the file has more than {self._limits.max_blocks} paragraphs or rows")
