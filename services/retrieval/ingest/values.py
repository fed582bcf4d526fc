"""Values found in files as metadata that can be filtered by."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Mapping
from math import isfinite
from typing import Any

from services.retrieval.ingest.extracted import clean
from services.retrieval.types import MetadataValue

__all__ = ["filterable", "metadata_value"]

_LONGEST_VALUE = 256  # longer texts are there to be read, not to be filtered by
# What `checks.check_metadata` takes.
_MAX_FIELDS = 64
_RESERVED = frozenset({"document_id", "file_name"})
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_NAME = 64
_LARGEST_EXACT = 2**53  # above it a double cannot tell whole numbers apart


def metadata_value(value: object) -> MetadataValue | None:
    """A text, number, truth value, date or list of short texts as metadata; None for the rest."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value) if len(value) <= _LONGEST_VALUE else None
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, datetime.date):  # a datetime is one, too
        return value.isoformat()
    if isinstance(value, list) and value and all(isinstance(item, str) and item for item in value):
        return tuple(map(clean, value)) if sum(map(len, value)) <= _LONGEST_VALUE else None
    return None


def filterable(members: Mapping[Any, object]) -> tuple[dict[str, MetadataValue], list[str]]:
    """Those members of a mapping that can be metadata, and the names of all the others.

    Names are made such as filters have: `Unit price (EUR)` becomes `Unit_price_EUR`. Of two that
    become the same, the second is among the others.
    """
    found: dict[str, MetadataValue] = {}
    others = []
    for key, value in members.items():
        name, kept = _field_name(str(key)), metadata_value(value)
        if not name or kept is None or name in found or len(found) == _MAX_FIELDS:
            others.append(key)
        else:
            found[name] = kept
    return found, others


def _field_name(name: str) -> str:
    """The nearest name that a filter can have; empty when nothing of it is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    field = _NOT_IN_NAMES.sub("_", plain).strip("_")
    if not field:
        return ""
    if not field[0].isalpha():
        field = f"_{field}"
    return f"{field}_" if field in _RESERVED else field[:_LONGEST_NAME]


def _number(value: float) -> MetadataValue | None:
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        return str(value) if abs(value) < 10**100 else None
    return float(value) if isfinite(value) else None
