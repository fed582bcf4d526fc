"""Markdown (CommonMark, tables, front matter): markdown-it-py finds the blocks and their lines."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token

from services.retrieval.ingest.document import (
    Block,
    BlockKind,
    ParsedDocument,
    ParseLimits,
    Stopwatch,
    unreadable,
)
from services.retrieval.ingest.extracted import clean
from services.retrieval.ingest.formats.text import divided_by_empty_lines
from services.retrieval.ingest.lines import LineIndex, trimmed
from services.retrieval.ingest.values import filterable

__all__ = ["parse_markdown"]

_FRONT_MATTER = re.compile(
    r"---[ \t]*(?:\r\n|\n|\r)(.*?)(?<=[\r\n])(?:---|\.\.\.)[ \t]*(?=[\r\n]|$)", re.DOTALL
)
_MAX_FRONT_MATTER = 16_384  # characters
_LONGEST_HEADING = 1_000  # characters of markup
_MAX_TOKENS = 600_000  # of markdown-it: some 250 MB; a heading has 3, a list item 5
_KINDS = {"fence": BlockKind.CODE, "code_block": BlockKind.CODE, "table_open": BlockKind.TABLE}


def parse_markdown(text: str, limits: ParseLimits) -> ParsedDocument:
    """Headings, code, tables, and everything else as paragraphs; offsets and lines are the file's.

    The title is the front matter's, else the first heading's of level 1.
    """
    lines = LineIndex(text)
    matter, first_line = _front_matter(text, lines)
    blocks = _blocks(text, lines, first_line, limits)
    top = (block.title for block in blocks if block.kind is BlockKind.HEADING and block.level == 1)
    named = matter.pop("title", None)
    title = "" if named is None else " ".join(clean(str(named)).split())
    return ParsedDocument(
        title or next(top, ""),
        text,
        tuple(blocks),
        "text/markdown",
        text_is_file=True,
        metadata=filterable(matter)[0],
    )


def _blocks(text: str, lines: LineIndex, first_line: int, limits: ParseLimits) -> list[Block]:
    stopwatch = Stopwatch(limits.max_seconds)
    tokens = _parser(stopwatch).parse(text[lines.start(first_line) :])
    headings = MarkdownIt("commonmark")
    blocks: list[Block] = []
    covered = lines.start(first_line)
    for position, token in enumerate(tokens):
        if token.level != 0 or token.map is None or token.nesting < 0:
            continue
        begin, end = (lines.start(first_line + line) for line in token.map)
        blocks += _paragraphs(text, lines, (covered, begin), limits)
        covered = max(covered, end)
        start, end = trimmed(text, begin, end)
        if start == end:
            continue
        kind, level, title = _KINDS.get(token.type, BlockKind.PARAGRAPH), 0, ""
        if token.type == "heading_open":
            title = clean(_plain(headings, tokens[position + 1].content, stopwatch))
            kind, level = (BlockKind.HEADING, int(token.tag[1:])) if title else (kind, 0)
        place = (lines.number(start), lines.number(end - 1))
        blocks.append(Block(kind, start, end, level, title, *place))
    return blocks + _paragraphs(text, lines, (covered, len(text)), limits)


def _paragraphs(
    text: str, lines: LineIndex, within: tuple[int, int], limits: ParseLimits
) -> list[Block]:
    """What the parser made nothing of, and the front matter that is none."""
    return divided_by_empty_lines(text, lines, within, BlockKind.PARAGRAPH, limits.max_blocks)


def _parser(stopwatch: Stopwatch) -> MarkdownIt:
    """A parser of blocks alone: what is inside them costs most and is not used."""

    def check(state: StateBlock, *_: object) -> bool:
        stopwatch.check()
        if len(state.tokens) > _MAX_TOKENS:
            raise unreadable("the file has too many paragraphs and list items")
        return False  # not a block

    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    # First of all rules wherever a block, or a line that might end one, is looked at.
    options: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("table", "stopwatch", check, options)
    return parser


def _plain(parser: MarkdownIt, markup: str, stopwatch: Stopwatch) -> str:
    """The words of a heading, without markup; nothing for one that is too long to be one."""
    stopwatch.check()
    if len(markup) > _LONGEST_HEADING:
        return ""
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
