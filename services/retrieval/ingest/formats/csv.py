"""CSV and TSV by the `csv` module: the first row names the columns, every other is a record."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from services.retrieval.ingest.document import ParsedDocument, ParseLimits, unreadable
from services.retrieval.ingest.formats.records import RecordBuilder

__all__ = ["parse_csv"]

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
# Whole numbers that doubles hold exactly; a leading zero belongs to a code, not to a number.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?")
_TRUTHS = {"true": True, "false": False}

Row = tuple[list[str], tuple[int, int]]  # its fields; its first and last line


def parse_csv(text: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """A record per row. A column of nothing but numbers, or of true and false, is not text.

    Raises `InvalidRequest` naming the line where quotes do not match or a field is too long.
    """
    delimiter = "\t" if media_type == "text/tab-separated-values" else _delimiter(text)
    rows = list(_rows(text, delimiter, limits))
    if len(rows) < 2:
        raise unreadable("the table has no rows below its first, which names the columns")
    header, *body = rows
    width = max(len(fields) for fields, _ in rows)
    names = _names(header[0], width)
    types = [_type([fields[n] for fields, _ in body if n < len(fields)]) for n in range(width)]
    builder = RecordBuilder(limits)
    for fields, lines in body:
        columns = zip(names, types, fields, strict=False)  # a short row lacks the last columns
        builder.add({name: _value(field, kind) for name, kind, field in columns}, lines)
    return builder.text.document("", media_type, "the table is empty")


def _rows(text: str, delimiter: str, limits: ParseLimits) -> Iterator[Row]:
    """The rows that have something in them."""
    reader = csv.reader(
        (line[0] for line in _LINE.finditer(text)), delimiter=delimiter, strict=True
    )
    first, count = 1, 0
    try:
        for fields in reader:
            lines = (first, reader.line_num)
            first = reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            count += 1
            if count > limits.max_blocks:
                raise unreadable(f"the table has more than {limits.max_blocks} rows")
            if len(fields) > limits.max_fields:
                raise unreadable(
                    f"line {lines[0]}: {len(fields)} fields; expected at most {limits.max_fields}"
                )
            yield fields, lines
    except csv.Error as error:
        raise unreadable(f"line {first}: the row that begins here is broken: {error}") from None


def _delimiter(text: str) -> str:
    """The delimiter that gives the first rows most often the same number of fields, above one."""
    best, best_score = ",", (0, 0)
    lines = [line[0] for _, line in zip(range(_SAMPLE_ROWS), _LINE.finditer(text), strict=False)]
    for delimiter in _DELIMITERS:
        widths: Counter[int] = Counter()
        try:
            widths.update(len(fields) for fields in csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        score = (count if width > 1 else 0, width)
        if score > best_score and width > 1:
            best, best_score = delimiter, score
    return best


def _names(header: Sequence[str], width: int) -> list[str]:
    """A name for each column: none is empty, no two are the same."""
    names: list[str] = []
    for number in range(1, width + 1):
        given = header[number - 1].strip() if number <= len(header) else ""
        name = given or f"column {number}"
        while name in names:
            name = f"{name} ({number})"
        names.append(name)
    return names


def _type(fields: Sequence[str]) -> type:
    """What all fields of a column can be read as: bool, float or str."""
    given = [field.strip() for field in fields if field.strip()]
    if all(field.lower() in _TRUTHS for field in given):
        return bool
    return float if all(_NUMBER.fullmatch(field) for field in given) else str


def _value(field: str, kind: type) -> object:
    field = field.strip()
    if not field or kind is str:
        return field
    return float(field) if kind is float else _TRUTHS[field.lower()]
