"""Source code: a block is a top-level definition with what stands right above it.

Goes by empty lines and indentation alone, which hold in nearly every language; knows no grammar.
"""

from __future__ import annotations

from services.retrieval.ingest.document import Block, BlockKind, ParsedDocument, ParseLimits
from services.retrieval.ingest.formats.text import divided_by_empty_lines
from services.retrieval.ingest.lines import LineIndex

__all__ = ["parse_code"]

# What begins a line without opening anything new: the end of a body, the rest of a signature.
_CLOSERS = ("}", ")", "]", ">", "end", "#endif", "*/", '"""', "'''", "else", "{")


def parse_code(text: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """A document of code blocks: each begins after an empty line, at a line without indent."""
    lines = LineIndex(text)
    whole = (0, len(text))
    runs = divided_by_empty_lines(text, lines, whole, BlockKind.CODE, limits.max_blocks)
    blocks: list[Block] = []
    for run in runs:
        if blocks and not _opens(text, run):
            above = blocks.pop()
            run = Block(
                BlockKind.CODE,
                above.start,
                run.end,
                line_start=above.line_start,
                line_end=run.line_end,
            )
        blocks.append(run)
    return ParsedDocument("", text, tuple(blocks), media_type, text_is_file=True)


def _opens(text: str, run: Block) -> bool:
    """Whether a run of lines begins something of its own at the top level."""
    is_indented = run.start > 0 and text[run.start - 1] not in "\r\n"
    return not is_indented and not text.startswith(_CLOSERS, run.start)
