"""HTML: what a reader sees of it, with headings, paragraphs, code and tables.

lxml (libxml2) reads it, broken or not, and knows the lines. Scripts, styles, navigation and what
is hidden are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from services.retrieval.ingest.document import (
    BlockKind,
    ParsedDocument,
    ParseLimits,
    Stopwatch,
    unreadable,
)
from services.retrieval.ingest.extracted import TextBuilder

__all__ = ["declared_encoding", "parse_html"]

_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,512}?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
_CHARSET_WITHIN = 4096  # bytes; HTML says 1024
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_INVISIBLE = _tags(
    """
    script style noscript template nav svg math head iframe object canvas audio video map
    select datalist button dialog
    """
)
_VERBATIM = _tags("pre listing xmp plaintext")
_BLOCKS = _VERBATIM | _tags(
    """
    address article aside blockquote body caption center dd details div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu
    nav ol p section summary table tbody td tfoot th thead tr ul
    """
)
# A table that has one of these is there for the layout.
_LAYOUT = ("table", "pre", "ul", "ol", *_HEADINGS)
_SPACE = re.compile(r"[ \t\n\r\f\v\xa0\u200b]+")
_BREAK = "\u2028"  # stands for <br> until white space has been collapsed


def declared_encoding(data: bytes) -> str | None:
    """The encoding that an HTML file says it is in."""
    match = _CHARSET.search(data, 0, _CHARSET_WITHIN)
    return match[1].decode("ascii") if match else None


def parse_html(text: str, limits: ParseLimits) -> ParsedDocument:
    """The visible text. The title is `<title>`'s, else the first heading's of level 1."""
    root = _tree(text)
    reader = _Reader(limits)
    reader.read(root)
    blocks = reader.builder.blocks
    top = (block.title for block in blocks if block.kind is BlockKind.HEADING and block.level == 1)
    title = root.findtext(".//title") or next(top, "")
    return reader.builder.document(title, "text/html", "the HTML has no text")


def _tree(text: str) -> Any:
    parser = etree.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=False
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.LxmlError as error:
        raise unreadable(f"the HTML cannot be read: {error}") from None
    if root is None:
        raise unreadable("the HTML has no elements")
    return root


class _Reader:
    """Walks the elements without recursion, gathering words until a block begins or ends."""

    def __init__(self, limits: ParseLimits) -> None:
        self.builder = TextBuilder(limits)
        self._max_depth = limits.max_depth
        self._stopwatch = Stopwatch(limits.max_seconds)
        self._words: list[str] = []
        self._line = 1  # where the first of them stands
        self._level = 0  # of the heading we are in
        self._is_item = False  # whether a list item has just begun
        self._has_items = False  # whether the last block was one

    def read(self, root: Any) -> None:
        """Adds everything visible below `root`."""
        depth = 0
        walker = etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            if event == "start":
                depth += 1
                if depth > self._max_depth:
                    raise unreadable(f"the HTML nests more than {self._max_depth} elements")
                if self._is_leaf(element):
                    walker.skip_subtree()
            else:
                depth -= 1
                self._end(element)
                if element is not root:
                    self._words.append(element.tail or "")
        self._flush()

    def _is_leaf(self, element: Any) -> bool:
        """Takes the element's beginning; true when all of it has been taken, or is to be left."""
        tag = element.tag
        if tag in _BLOCKS:
            self._flush()
            self._line = element.sourceline or self._line
        if _is_hidden(element):
            return True
        if tag in _VERBATIM:
            self._add(BlockKind.CODE, _visible(element), element)
            return True
        if tag == "table" and next(element.iterdescendants(*_LAYOUT), None) is None:
            self._add(BlockKind.TABLE, "\n".join(_rows(element)), element)
            return True
        self._level = _HEADINGS.get(tag, self._level)
        self._is_item = self._is_item or tag == "li"
        self._words.append(_instead(element) + (element.text or ""))
        return False

    def _end(self, element: Any) -> None:
        if element.tag in _BLOCKS:
            self._flush()
        if element.tag in _HEADINGS:
            self._level = 0
        if element.tag == "li":
            self._is_item = False

    def _flush(self) -> None:
        """Ends the block that the gathered words make."""
        self._stopwatch.check()
        raw = "".join(self._words)
        self._words.clear()
        text = _collapsed(raw)
        if text:
            first = self._line + raw[: len(raw) - len(raw.lstrip())].count("\n")
            lines = (first, first + raw.strip().count("\n"))
            if self._level:
                title = " ".join(text.split())
                kind, level = BlockKind.HEADING, self._level
                self.builder.add(kind, text, level=level, title=title, lines=lines)
            else:
                self._paragraph(text, lines)
        self._line += raw.count("\n")

    def _paragraph(self, text: str, lines: tuple[int, int]) -> None:
        separator = "\n" if self._is_item and self._has_items else "\n\n"
        text = f"- {text}" if self._is_item else text
        self.builder.add(BlockKind.PARAGRAPH, text, lines=lines, separator=separator)
        self._has_items, self._is_item = self._is_item, False

    def _add(self, kind: BlockKind, text: str, element: Any) -> None:
        first = element.sourceline or self._line
        inside = [child.sourceline or first for child in element.iterdescendants()]
        last = max([first, *inside]) if kind is BlockKind.TABLE else first + text.count("\n")
        self.builder.add(kind, text, lines=(first, last))


def _is_hidden(element: Any) -> bool:
    """Whether a reader of the page never sees the element, or sees it on every page."""
    return (
        element.tag in _INVISIBLE
        or element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or element.get("role") == "navigation"
    )


def _instead(element: Any) -> str:
    """What stands for an element that has no words of its own."""
    if element.tag == "br":
        return _BREAK
    return str(element.get("alt", "")) if element.tag == "img" else ""


def _visible(element: Any) -> str:
    """All the words of an element, with the white space they have."""
    words = []
    walker = etree.iterwalk(element, events=("start", "end"))
    for event, child in walker:
        if event == "start" and _is_hidden(child):
            walker.skip_subtree()
        elif event == "start":
            words.append(_instead(child) + (child.text or ""))
        elif child is not element:
            words.append(child.tail or "")
    return "".join(words).replace(_BREAK, "\n")


def _rows(table: Any) -> Iterator[str]:
    """A line for the caption and for each row, ` | ` between its cells."""
    for row in table.iterdescendants("caption", "tr"):
        cells = row.iterchildren("td", "th") if row.tag == "tr" else (row,)
        yield " | ".join(" ".join(_visible(cell).split()) for cell in cells)


def _collapsed(raw: str) -> str:
    """Words as a browser shows them: any white space is one space, and `<br>` a line break."""
    lines = _SPACE.sub(" ", raw).split(_BREAK)
    return "\n".join(line.strip() for line in lines).strip()
