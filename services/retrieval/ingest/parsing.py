"""Reads a file, whatever its format, into text and structure.

The format is found by `detection.py`, the encoding of text by `decoding.py`; a module of `formats/`
does the rest.
"""

from __future__ import annotations

import re

from services.retrieval.ingest.decoding import decode
from services.retrieval.ingest.detection import Format, detect, media_type_of
from services.retrieval.ingest.document import ParsedDocument, ParseLimits, unreadable
from services.retrieval.ingest.formats.code import parse_code
from services.retrieval.ingest.formats.csv import parse_csv
from services.retrieval.ingest.formats.docx import parse_docx
from services.retrieval.ingest.formats.html import declared_encoding, parse_html
from services.retrieval.ingest.formats.json import parse_json, parse_json_lines
from services.retrieval.ingest.formats.markdown import parse_markdown
from services.retrieval.ingest.formats.pdf import parse_pdf
from services.retrieval.ingest.formats.text import parse_text

__all__ = ["parse"]

_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.IGNORECASE)


def parse(
    data: bytes, file_name: str, media_type: str = "", limits: ParseLimits | None = None
) -> ParsedDocument:
    """Reads `data`. The name's ending and `media_type` say what it is; clear content overrules.

    Raises `InvalidRequest` (field "file") whose message names what is wrong: the file is empty, too
    large, binary, encrypted, broken, a bomb, or of no format that is read.
    """
    limits = limits or ParseLimits()
    if len(data) > limits.max_bytes:
        raise unreadable(f"the file has {len(data)} bytes; expected at most {limits.max_bytes}")
    if not data.strip():
        raise unreadable("the file is empty")
    kind = detect(data, file_name, media_type)
    if kind is Format.PDF:
        return parse_pdf(data, limits)
    if kind is Format.DOCX:
        return parse_docx(data, limits)
    charset = _CHARSET.search(media_type)
    declared = charset[1] if charset else None
    if kind is Format.HTML and declared is None:
        declared = declared_encoding(data)
    text = decode(data, limits.max_characters, declared)
    document = _parse_text(kind, text, media_type_of(kind, file_name, media_type), limits)
    if not document.blocks:
        raise unreadable("the file has no text")
    if len(document.blocks) > limits.max_blocks:
        raise unreadable(f"the file has more than {limits.max_blocks} paragraphs")
    return document


def _parse_text(kind: Format, text: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    match kind:
        case Format.MARKDOWN:
            return parse_markdown(text, limits)
        case Format.HTML:
            return parse_html(text, limits)
        case Format.CSV:
            return parse_csv(text, media_type, limits)
        case Format.JSON:
            return parse_json(text, limits)
        case Format.JSON_LINES:
            return parse_json_lines(text, limits)
        case Format.CODE:
            return parse_code(text, media_type, limits)
        case _:
            return parse_text(text, limits)
