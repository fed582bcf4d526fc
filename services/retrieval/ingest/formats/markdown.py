"""Markdown (CommonMark, tables, front matter): markdown-it-py finds the blocks and their lines."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.retrieval.ingest.document import Block, BlockKind, ParsedDocument
from services.retrieval.ingest.formats.text import divided_by_empty_lines
from services.retrieval.ingest.lines import LineIndex, trimmed
from services.retrieval.ingest.values import filterable

__all__ = ["parse_markdown"]

_FRONT_MATTER = re.compile(
    r"---[ \t]*(?:\r\n|\n|\r)(.*?)(?<=[\r\n])(?:---|\.\.\.)[ \t]*(?=[\r\n]|$)", re.DOTALL
)
_MAX_FRONT_MATTER = 16_384  # characters
_KINDS = {"fence": BlockKind.CODE, "code_block": BlockKind.CODE, "table_open": BlockKind.TABLE}


def parse_markdown(text: str) -> ParsedDocument:
    """Headings, code, tables, and everything else as paragraphs; offsets and lines are the file's.

    The title is the front matter's, else the first heading's of level 1.
    """
    lines = LineIndex(text)
    matter, first_line = _front_matter(text, lines)
    blocks = _blocks(text, lines, first_line)
    top = (block.title for block in blocks if block.kind is BlockKind.HEADING and block.level == 1)
    title = matter.pop("title", "")
    return ParsedDocument(
        str(title) or next(top, ""),
        text,
        tuple(blocks),
        "text/markdown",
        text_is_file=True,
        metadata=filterable(matter),
    )


def _blocks(text: str, lines: LineIndex, first_line: int) -> list[Block]:
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])  # inline markup costs most and is not used
    headings = MarkdownIt("commonmark")
    tokens = parser.parse(text[lines.start(first_line) :])
    blocks: list[Block] = []
    covered = first_line
    for position, token in enumerate(tokens):
        if token.level != 0 or token.map is None or token.nesting < 0:
            continue
        begin, end = (first_line + line for line in token.map)
        blocks += divided_by_empty_lines(text, lines, covered, begin, BlockKind.PARAGRAPH)
        start_offset, end_offset = trimmed(text, lines.start(begin), lines.start(end))
        covered = max(covered, end)
        if start_offset == end_offset:
            continue
        kind, level, title = _KINDS.get(token.type, BlockKind.PARAGRAPH), 0, ""
        if token.type == "heading_open":
            title = _plain(headings, tokens[position + 1].content)
            kind, level = (BlockKind.HEADING, int(token.tag[1:])) if title else (kind, 0)
        last = lines.number(end_offset - 1)
        blocks.append(
            Block(kind, start_offset, end_offset, level, title, lines.number(start_offset), last)
        )
    blocks += divided_by_empty_lines(text, lines, covered, len(lines), BlockKind.PARAGRAPH)
    return blocks


def _plain(parser: MarkdownIt, markup: str) -> str:
    """The words of a heading, without markup."""
    inlines = parser.parseInline(markup)
    tokens = [token for inline in inlines for token in inline.children or ()]
    return " ".join("".join(map(_words, tokens)).split())


def _words(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return " "
    return "" if token.type == "html_inline" else token.content


def _front_matter(text: str, lines: LineIndex) -> tuple[dict[str, Any], int]:
    """The members of what stands between two `---` at the very top, and the line after it.

    What is no YAML mapping is no front matter, but text like any other.
    """
    match = _FRONT_MATTER.match(text, 0, _MAX_FRONT_MATTER)
    if match is None or "<<" in match[1]:  # merge keys can multiply without bound
        return {}, 0
    try:
        values = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, 0
    return (values, lines.number(match.end() - 1)) if isinstance(values, dict) else ({}, 0)
