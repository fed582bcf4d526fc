"""DOCX by python-docx: paragraphs, headings by style, tables.

The archive is measured before it is opened, and parts with a document type are refused: Word writes
none, and entities are what bombs are made of.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import docx
from docx.oxml.ns import qn
from lxml import etree

from services.retrieval.ingest.document import (
    BlockKind,
    ParsedDocument,
    ParseLimits,
    Stopwatch,
    unreadable,
)
from services.retrieval.ingest.extracted import TextBuilder
from services.runtime.errors import InvalidRequest

__all__ = ["parse_docx"]

_BROKEN = "the DOCX is broken or cut off"
_SMALL = 2**16  # bytes; a part that stays below it may be packed as tightly as it likes
_DOCTYPES = tuple("<!DOCTYPE".encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be"))
_STYLES_DEEP = 10  # built on one another; a circle would have no end
_ENCRYPTED = 0x1  # in the flags of an entry
_INSTEAD = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_TEXT, _PARAGRAPH, _TABLE = qn("w:t"), qn("w:p"), qn("w:tbl")
# Text boxes are written twice, for old and new readers; deleted text is none any more.
_SKIPPED = frozenset((qn("w:del"), qn("w:moveFrom"), qn("w:txbxContent"), qn("w:instrText")))


def parse_docx(data: bytes, limits: ParseLimits) -> ParsedDocument:
    """The text of the body. The title is the file's own, else the first heading's of level 1.

    Raises `InvalidRequest` when the file is encrypted, broken, a bomb, or has no text.
    """
    try:
        _measure(data, limits)
        document = docx.Document(io.BytesIO(data))
        return _read(document, limits)
    except InvalidRequest:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        etree.LxmlError,
        EOFError,
        NotImplementedError,
        OSError,
        KeyError,
        ValueError,
        AttributeError,
        TypeError,
        IndexError,
        RecursionError,
    ):  # fmt: skip  -- python-docx checks little of what it reads
        raise unreadable(_BROKEN) from None


def _measure(data: bytes, limits: ParseLimits) -> None:
    """Refuses what would be too large unpacked. An entry never gives more than it declares."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > limits.max_archive_entries:
            raise unreadable(
                f"the DOCX has {len(entries)} parts; expected at most {limits.max_archive_entries}"
            )
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > limits.max_unpacked_bytes:
            raise unreadable(
                f"the DOCX unpacks to {unpacked} bytes; expected at most "
                f"{limits.max_unpacked_bytes}"
            )
        for entry in entries:
            if entry.flag_bits & _ENCRYPTED:
                raise unreadable("the DOCX is encrypted; a password is needed")
            ratio = entry.file_size / max(1, entry.compress_size)
            if entry.file_size > _SMALL and ratio > limits.max_unpacked_ratio:
                raise unreadable(
                    "the DOCX is a zip bomb: a part unpacks to over "
                    f"{limits.max_unpacked_ratio} times its size"
                )
        for entry in entries:
            if entry.filename.endswith((".xml", ".rels")):
                _refuse_doctype(archive.read(entry))


def _refuse_doctype(part: bytes) -> None:
    if any(mark in part for mark in _DOCTYPES):
        raise unreadable("the DOCX declares a document type or entities, which are not read")


def _read(document: Any, limits: ParseLimits) -> ParsedDocument:
    builder = TextBuilder(limits)
    stopwatch = Stopwatch(limits.max_seconds)
    levels, lists = _styles(document)
    title = document.core_properties.title
    for element in _content(document.element.body):
        stopwatch.check()
        if element.tag == _TABLE:
            builder.add(BlockKind.TABLE, "\n".join(_rows(element)))
            continue
        text = _text(element)
        level = levels.get(element.style or "", 0)
        heading = " ".join(text.split()) if level else ""
        kind = BlockKind.HEADING if heading else BlockKind.PARAGRAPH
        is_item = kind is BlockKind.PARAGRAPH and (_is_numbered(element) or element.style in lists)
        builder.add(
            kind, f"- {text}" if is_item and text.strip() else text, level=level, title=heading
        )
    top = (block.title for block in builder.blocks if block.level == 1)
    media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    return builder.document(title or next(top, ""), media_type, "the DOCX has no text")


def _styles(document: Any) -> tuple[dict[str, int], set[str]]:
    """By style id: the levels of headings and the styles of list items.

    A style counts as what it is built on. Below a title, headings go down by a level.
    """
    levels: dict[str, int] = {}
    lists = set()
    used = {paragraph.style for paragraph in document.element.body.iter(_PARAGRAPH)}
    for style in document.styles.element.style_lst:
        for name in _names(style):
            if name == "title":
                levels[style.styleId] = 0
            elif name.startswith("heading ") and name[8:].isdigit():
                levels[style.styleId] = int(name[8:])
            elif name.startswith("list "):
                lists.add(style.styleId)
    has_title = any(levels.get(style) == 0 for style in used)
    return {style: min(6, level + has_title) for style, level in levels.items()}, lists


def _names(style: Any) -> Iterator[str]:
    """The names of a style and of those it is built on, in small letters, the last first."""
    names: list[str] = []
    while style is not None and len(names) < _STYLES_DEEP:
        names.append((style.name_val or "").lower())
        style = style.base_style
    return reversed(names)


def _content(parent: Any) -> Iterator[Any]:
    """The paragraphs and tables of a body, those in content controls too, in order."""
    pending = [iter(parent)]
    while pending:
        element = next(pending[-1], None)
        if element is None:
            pending.pop()
        elif element.tag in (_PARAGRAPH, _TABLE):
            yield element
        elif element.tag not in _SKIPPED:
            pending.append(iter(element))


def _text(element: Any) -> str:
    """The words of a paragraph as they show: with links and insertions, without deletions."""
    words = []
    walker = etree.iterwalk(element, events=("start",))
    for _, child in walker:
        if child.tag in _SKIPPED:
            walker.skip_subtree()
        elif child.tag == _TEXT:
            words.append(child.text or "")
        elif child.tag in _INSTEAD:
            words.append(_INSTEAD[child.tag])
    return "".join(words)


def _rows(table: Any) -> Iterator[str]:
    """A line for each row, ` | ` between its cells. A table inside is part of its cell."""
    for row in table.iter(qn("w:tr")):
        cells = (" ".join(_text(cell).split()) for cell in row.iterchildren(qn("w:tc")))
        yield " | ".join(cells)


def _is_numbered(paragraph: Any) -> bool:
    properties = paragraph.pPr
    return properties is not None and properties.numPr is not None
