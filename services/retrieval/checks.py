"""What names, ids, metadata and filters of a client may look like. Each refusal names the field.

Nothing here needs a collection; what depends on one is checked by the index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from services.retrieval.types import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Metadata,
    MetadataValue,
    Not,
    Operator,
)
from services.runtime.errors import InvalidRequest

__all__ = [
    "MAX_FILTER_DEPTH",
    "MAX_METADATA_FIELDS",
    "check_collection_metadata",
    "check_collection_name",
    "check_document_id",
    "check_filter_form",
    "check_label",
    "check_metadata",
]

MAX_ID_BYTES = 512
MAX_LABEL_BYTES = 1024  # titles, file names, media types
MAX_METADATA_FIELDS = 64
MAX_STRING_BYTES = 4 << 10
MAX_LIST_STRINGS = 256
MAX_METADATA_BYTES = 64 << 10  # of one document or chunk: every hit carries it
MAX_FILTER_DEPTH = 16
MAX_FILTER_COMPARISONS = 256
MAX_FILTER_VALUES = 4096  # over all comparisons

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PARENT_FOLDER = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
# Filters find these in every document.
_RESERVED_FIELDS = frozenset({"document_id", "file_name"})
_ORDERED = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})


def check_collection_name(name: str, field: str = "collection") -> None:
    """Raises `InvalidRequest` unless it may name a collection."""
    if not _COLLECTION_NAME.fullmatch(name) or ".." in name:
        raise InvalidRequest(
            f"{field}: expected 1 to 64 letters, digits, '_', '-' or single '.', beginning with a "
            f"letter or digit, got {_shown(name)}",
            field=field,
        )


def check_document_id(document_id: str, field: str) -> None:
    """Raises `InvalidRequest` unless it may name a document."""
    if not document_id:
        raise InvalidRequest(f"{field}: expected 1 to {MAX_ID_BYTES} bytes", field=field)
    check_label(document_id, field, MAX_ID_BYTES)


def check_label(text: str, field: str, max_bytes: int = MAX_LABEL_BYTES) -> None:
    """Raises `InvalidRequest` for a name that is too long, unprintable, or climbs folders.

    Names never touch a file system here; whoever writes documents out under them is kept safe.
    """
    if len(text.encode()) > max_bytes:
        raise InvalidRequest(f"{field}: expected at most {max_bytes} bytes", field=field)
    if _CONTROL.search(text):
        raise InvalidRequest(f"{field}: control characters are not allowed", field=field)
    if _PARENT_FOLDER.search(text):
        raise InvalidRequest(
            f"{field}: expected a name, '..' may not be a part of it, got {_shown(text)}",
            field=field,
        )


def check_metadata(metadata: Metadata, field: str) -> None:
    """Raises `InvalidRequest` naming the field of the metadata that is wrong."""
    if len(metadata) > MAX_METADATA_FIELDS:
        raise InvalidRequest(
            f"{field}: expected at most {MAX_METADATA_FIELDS} fields, got {len(metadata)}",
            field=field,
        )
    for name, value in metadata.items():
        if not _FIELD_NAME.fullmatch(name):
            raise InvalidRequest(
                f"{field}: a name begins with a letter or '_' and has at most 64 letters, digits, "
                f"'_', '.' or '-', got {_shown(name)}",
                field=field,
            )
        if name in _RESERVED_FIELDS:
            raise InvalidRequest(
                f"{field}.{name}: every document has this one by itself", field=f"{field}.{name}"
            )
        _check_value(value, f"{field}.{name}")
    num_bytes = sum(len(name) + _num_bytes(value) for name, value in metadata.items())
    if num_bytes > MAX_METADATA_BYTES:
        raise InvalidRequest(
            f"{field}: expected at most {MAX_METADATA_BYTES} bytes in all, got {num_bytes}",
            field=field,
        )


def check_collection_metadata(metadata: Mapping[str, str], field: str = "metadata") -> None:
    """Raises `InvalidRequest`: as for documents, but any name without control characters."""
    if len(metadata) > MAX_METADATA_FIELDS:
        raise InvalidRequest(
            f"{field}: expected at most {MAX_METADATA_FIELDS} fields, got {len(metadata)}",
            field=field,
        )
    for name, value in metadata.items():
        if not name or len(name.encode()) > 64 or _CONTROL.search(name):
            raise InvalidRequest(
                f"{field}: a name has 1 to 64 bytes without control characters, got {_shown(name)}",
                field=field,
            )
        _check_value(value, f"{field}.{name}")


def check_filter_form(filter_: Filter, field: str = "filter") -> None:
    """Raises `InvalidRequest` for a filter that is too large or cannot be evaluated."""
    counts = _Counts()
    _check_filter(filter_, field, 1, counts)
    if counts.comparisons > MAX_FILTER_COMPARISONS or counts.values > MAX_FILTER_VALUES:
        raise InvalidRequest(
            f"{field}: expected at most {MAX_FILTER_COMPARISONS} comparisons and "
            f"{MAX_FILTER_VALUES} values",
            field=field,
        )


class _Counts:
    def __init__(self) -> None:
        self.comparisons = 0
        self.values = 0


def _check_filter(filter_: Filter, field: str, depth: int, counts: _Counts) -> None:
    if depth > MAX_FILTER_DEPTH:
        raise InvalidRequest(
            f"{field}: expected at most {MAX_FILTER_DEPTH} levels", field=field.partition(".")[0]
        )
    match filter_:
        case Comparison():
            counts.comparisons += 1
            counts.values += len(filter_.values)
            _check_comparison(filter_, field)
        case AllOf():
            _check_all(filter_.filters, f"{field}.all_of", depth, counts)
        case AnyOf():
            _check_all(filter_.filters, f"{field}.any_of", depth, counts)
        case Not():
            _check_filter(filter_.filter, f"{field}.not", depth + 1, counts)


def _check_all(filters: Sequence[Filter], field: str, depth: int, counts: _Counts) -> None:
    if not filters:
        raise InvalidRequest(f"{field}: expected at least one filter", field=field)
    for index, inner in enumerate(filters):
        _check_filter(inner, f"{field}[{index}]", depth + 1, counts)


def _check_comparison(comparison: Comparison, field: str) -> None:
    name, operator, values = comparison.field, comparison.operator, comparison.values
    if not _FIELD_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{field}.field: expected the name of a metadata field, got {_shown(name)}",
            field=f"{field}.field",
        )
    where = f"{field}.values"
    if operator is Operator.EXISTS:
        if values:
            raise InvalidRequest(f"{where}: EXISTS takes none", field=where)
        return
    several = operator in (Operator.IN, Operator.NOT_IN)
    if not values or (len(values) > 1 and not several):
        wanted = "at least one value" if several else "one value"
        raise InvalidRequest(
            f"{where}: {operator.name} takes {wanted}, got {len(values)}", field=where
        )
    if len({type(value) for value in values}) > 1:
        raise InvalidRequest(f"{where}: expected values of one type", field=where)
    for value in values:
        if isinstance(value, tuple):
            raise InvalidRequest(
                f"{where}: a list is compared by its elements: expected strings", field=where
            )
        if operator in _ORDERED and isinstance(value, bool):
            raise InvalidRequest(
                f"{where}: {operator.name} needs numbers or strings, got a bool", field=where
            )
        _check_value(value, where)


def _check_value(value: MetadataValue, field: str) -> None:
    if isinstance(value, str):
        if len(value.encode()) > MAX_STRING_BYTES:
            raise InvalidRequest(f"{field}: expected at most {MAX_STRING_BYTES} bytes", field=field)
    elif isinstance(value, tuple):
        if len(value) > MAX_LIST_STRINGS:
            raise InvalidRequest(
                f"{field}: expected at most {MAX_LIST_STRINGS} strings, got {len(value)}",
                field=field,
            )
        for element in value:
            _check_value(element, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{field}: expected a finite number", field=field)


def _num_bytes(value: MetadataValue) -> int:
    if isinstance(value, tuple):
        return sum(len(element.encode()) for element in value)
    return len(value.encode()) if isinstance(value, str) else 8


def _shown(text: str) -> str:
    """For a message: short, and without characters that could do harm in a log."""
    return ascii(text[:64] + ("..." if len(text) > 64 else ""))
