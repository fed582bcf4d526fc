"""Plain text: paragraphs are what empty lines divide."""

from __future__ import annotations

import re

from services.retrieval.ingest.document import (
    Block,
    BlockKind,
    ParsedDocument,
    ParseLimits,
    unreadable,
)
from services.retrieval.ingest.lines import LineIndex, trimmed

__all__ = ["divided_by_empty_lines", "parse_text"]

_EMPTY_LINES = re.compile(r"(?:\r\n|\n|\r(?!\n))[ \t\f\v]*(?:\r\n|\n|\r(?!\n))\s*")


def parse_text(text: str, limits: ParseLimits) -> ParsedDocument:
    """A document of paragraphs. It has no title."""
    lines = LineIndex(text)
    blocks = divided_by_empty_lines(
        text, lines, (0, len(text)), BlockKind.PARAGRAPH, limits.max_blocks
    )
    return ParsedDocument("", text, tuple(blocks), "text/plain", text_is_file=True)


def divided_by_empty_lines(
    text: str, lines: LineIndex, within: tuple[int, int], kind: BlockKind, max_blocks: int
) -> list[Block]:
    """Each run of lines that are not empty as a block. `within` are offsets of line starts.

    Raises `InvalidRequest` when there are more than `max_blocks`.
    """
    blocks: list[Block] = []
    begin, last = within
    while begin < last:
        gap = _EMPTY_LINES.search(text, begin, last)
        start, end = trimmed(text, begin, gap.start() if gap is not None else last)
        begin = gap.end() if gap is not None else last
        if start == end:
            continue
        first_line, last_line = lines.number(start), lines.number(end - 1)
        blocks.append(Block(kind, start, end, line_start=first_line, line_end=last_line))
        if len(blocks) > max_blocks:
            raise unreadable(f"the file has more than {max_blocks} paragraphs")
    return blocks
