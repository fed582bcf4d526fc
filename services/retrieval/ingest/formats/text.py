"""Plain text: paragraphs are what empty lines divide."""

from __future__ import annotations

from services.retrieval.ingest.document import Block, BlockKind, ParsedDocument
from services.retrieval.ingest.lines import LineIndex, trimmed

__all__ = ["divided_by_empty_lines", "parse_text"]


def parse_text(text: str) -> ParsedDocument:
    """A document of paragraphs. It has no title."""
    lines = LineIndex(text)
    blocks = divided_by_empty_lines(text, lines, 0, len(lines), BlockKind.PARAGRAPH)
    return ParsedDocument("", text, tuple(blocks), "text/plain", text_is_file=True)


def divided_by_empty_lines(
    text: str, lines: LineIndex, first: int, last: int, kind: BlockKind
) -> list[Block]:
    """The blocks of lines `[first, last)`, counted from 0: each run of lines that are not empty."""
    blocks = []
    begin = None
    for line in range(first, last + 1):
        is_text = line < last and bool(text[lines.start(line) : lines.start(line + 1)].strip())
        if is_text and begin is None:
            begin = line
        elif not is_text and begin is not None:
            start, end = trimmed(text, lines.start(begin), lines.start(line))
            blocks.append(Block(kind, start, end, line_start=begin + 1, line_end=line))
            begin = None
    return blocks
