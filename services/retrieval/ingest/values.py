"""Values found in files as metadata that can be filtered by."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from math import isfinite
from typing import Any

from services.retrieval.types import MetadataValue

__all__ = ["MAX_VALUE_CHARACTERS", "filterable", "metadata_value"]

MAX_VALUE_CHARACTERS = 256  # longer texts are there to be read, not to be filtered by
_LARGEST_EXACT = 2**53  # above it a double cannot tell whole numbers apart


def metadata_value(value: object) -> MetadataValue | None:
    """A text, number, truth value, date or list of short texts as metadata; None for the rest."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if len(value) <= MAX_VALUE_CHARACTERS else None
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, datetime.date):  # a datetime is one, too
        return value.isoformat()
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value) if sum(map(len, value)) <= MAX_VALUE_CHARACTERS else None
    return None


def filterable(values: Mapping[Any, object]) -> dict[str, MetadataValue]:
    """Those members of a mapping that can be metadata."""
    found = {}
    for key, value in values.items():
        kept = metadata_value(value)
        if kept is not None and 0 < len(str(key)) <= MAX_VALUE_CHARACTERS:
            found[str(key)] = kept
    return found


def _number(value: float) -> MetadataValue | None:
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        return str(value) if abs(value) < 10**100 else None
    return float(value) if isfinite(value) else None
