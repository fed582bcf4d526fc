"""JSON Lines, and JSON files that are a list of objects: a record for each.

Any other JSON is text, cut like source code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from services.retrieval.ingest.document import ParsedDocument, ParseLimits, unreadable
from services.retrieval.ingest.formats.code import parse_code
from services.retrieval.ingest.formats.records import RecordBuilder
from services.retrieval.ingest.lines import LineIndex

__all__ = ["parse_json", "parse_json_lines"]

_SPACE = re.compile(r"[ \t\r\n]*")


def parse_json_lines(text: str, limits: ParseLimits) -> ParsedDocument:
    """A record for each line that is not empty. Raises `InvalidRequest` naming the broken line."""
    builder = RecordBuilder(limits)
    lines = LineIndex(text)
    for number in range(len(lines)):
        line = text[lines.start(number) : lines.start(number + 1)].strip()
        if line:
            builder.add(_object(line, number + 1), (number + 1, number + 1))
    return builder.text.document("", "application/jsonl", "no line has any text")


def parse_json(text: str, limits: ParseLimits) -> ParsedDocument:
    """A record for each object of a list; anything else as it stands.

    Raises `InvalidRequest` naming the line where the file is no JSON.
    """
    lines = LineIndex(text)
    try:
        elements = list(_elements(text))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON Lines by another name
            return parse_json_lines(text, limits)
        raise unreadable(f"line {lines.number(error.pos)}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise unreadable(f"not JSON that can be read: {_reason(error)}") from None
    if not elements or not all(isinstance(element, dict) for element, _, _ in elements):
        return parse_code(text, "application/json", limits)
    builder = RecordBuilder(limits)
    for element, start, end in elements:
        builder.add(element, (lines.number(start), lines.number(end - 1)))
    return builder.text.document("", "application/json", "no object has any text")


def _elements(text: str) -> Iterator[tuple[Any, int, int]]:
    """The elements of a list with where they stand; nothing for JSON that is no list."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = _skip(text, 0)
    if not text.startswith("[", position):
        _, end = decoder.raw_decode(text, position)
        if _skip(text, end) < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
        return
    position = _skip(text, position + 1)
    while not text.startswith("]", position):
        element, end = decoder.raw_decode(text, position)
        yield element, position, end
        position = _skip(text, end)
        if text.startswith(",", position):
            position = _skip(text, position + 1)
        elif not text.startswith("]", position):
            raise json.JSONDecodeError("expected ',' or ']'", text, min(position, len(text) - 1))
    if (end := _skip(text, position + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise unreadable(f"line {number}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise unreadable(f"line {number}: not JSON that can be read: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise unreadable(f"line {number}: expected an object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _reason(error: Exception) -> str:
    return "it nests too deep" if isinstance(error, RecursionError) else str(error)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
