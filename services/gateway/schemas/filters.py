"""Metadata and filters over it, in OpenAI's form.

    {"type": "eq", "key": "year", "value": 2024}
    {"type": "and", "filters": [...]}    {"type": "or", "filters": [...]}

and beyond OpenAI's: `{"type": "not", "filter": {...}}`, `{"type": "exists", "key": "year"}`.
Whether the field is there and of that type is the retrieval service's to say.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from services.gateway.schemas.base import refuse

__all__ = ["COMPARISONS", "LISTS", "Attributes", "Metadata", "MetadataFilter", "StringMetadata"]

COMPARISONS = ("eq", "ne", "gt", "gte", "lt", "lte")
LISTS = ("in", "nin")
_COMPOUNDS = ("and", "or")
_TYPES = (*COMPARISONS, *LISTS, "exists", *_COMPOUNDS, "not")
# Far above what people write, and far below what protobuf and Python can nest.
_MAX_DEPTH = 16


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)  # a bool is an int


def _is_string_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _checked_filter(value: Any) -> Any:
    _check_filter(value, "", 1)
    return value


def _check_filter(value: Any, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise refuse("invalid_value", f"expected at most {_MAX_DEPTH} filters within each other")
    if not isinstance(value, dict) or value.get("type") not in _TYPES:
        expected = ", ".join(_TYPES)
        raise refuse("invalid_value", f"{path}expected an object whose type is one of {expected}")
    kind = value["type"]
    if kind in _COMPOUNDS:
        _check_fields(value, path, "filters")
        filters = value["filters"]
        if not isinstance(filters, list) or not filters:
            raise refuse("invalid_value", f"{path}filters: expected a list with at least one entry")
        for index, entry in enumerate(filters):
            _check_filter(entry, f"{path}filters[{index}]: ", depth + 1)
    elif kind == "not":
        _check_fields(value, path, "filter")
        _check_filter(value["filter"], f"{path}filter: ", depth + 1)
    else:
        _check_comparison(kind, value, path)


def _check_comparison(kind: str, value: dict[str, Any], path: str) -> None:
    _check_fields(value, path, *(("key",) if kind == "exists" else ("key", "value")))
    if not isinstance(value["key"], str) or not value["key"]:
        raise refuse("invalid_type", f"{path}key: expected the name of a field")
    if kind in COMPARISONS and not _is_scalar(value["value"]):
        raise refuse("invalid_type", f"{path}value: expected a string, a number, true or false")
    if kind in LISTS:
        values = value["value"]
        if not isinstance(values, list) or not values or not all(map(_is_scalar, values)):
            raise refuse("invalid_type", f"{path}value: expected a list of strings or numbers")


def _check_fields(value: dict[str, Any], path: str, *names: str) -> None:
    for name in names:
        if name not in value:
            raise refuse("missing_required_parameter", f"{path}missing {name!r}")
    unknown = sorted(str(key) for key in set(value) - {"type", *names})
    if unknown:
        raise refuse("unknown_parameter", f"{path}unknown field {unknown[0][:64]!r}")


def _checked_metadata(value: Any, expected: str, *, lists: bool, scalars: bool) -> Any:
    if not isinstance(value, dict):
        raise refuse("invalid_type", "expected an object")
    for key, entry in value.items():
        right = isinstance(entry, str) or (scalars and _is_scalar(entry))
        if not right and not (lists and _is_string_list(entry)):
            raise refuse("invalid_type", f"value of {key[:64]!r}: expected {expected}")
    return value


def _document_metadata(value: Any) -> Any:
    expected = "a string, a number, true, false or a list of strings"
    return _checked_metadata(value, expected, lists=True, scalars=True)


def _attributes(value: Any) -> Any:
    return _checked_metadata(value, "a string, a number, true or false", lists=False, scalars=True)


def _string_metadata(value: Any) -> Any:
    return _checked_metadata(value, "a string", lists=False, scalars=False)


def _values(*kinds: str, lists: bool = False) -> dict[str, Any]:
    types: list[dict[str, Any]] = [{"type": kind} for kind in kinds]
    if lists:
        types.append({"type": "array", "items": {"type": "string"}})
    return {"type": "object", "additionalProperties": {"anyOf": types}}


_FILTER_SCHEMA = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": list(_TYPES)},
        "key": {"type": "string", "description": "A field of the metadata."},
        "value": {"description": "To compare with; of `in` and `nin`, a list."},
        "filters": {"type": "array", "description": "Of `and` and `or`."},
        "filter": {"type": "object", "description": "Of `not`."},
    },
    "examples": [{"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2020}]}],
}

# Plain dicts that were checked: one type for all keys, whatever they mean.
MetadataFilter = Annotated[Any, BeforeValidator(_checked_filter), WithJsonSchema(_FILTER_SCHEMA)]
Metadata = Annotated[
    Any,
    BeforeValidator(_document_metadata),
    WithJsonSchema(_values("string", "number", "boolean", lists=True)),
]
Attributes = Annotated[
    Any, BeforeValidator(_attributes), WithJsonSchema(_values("string", "number", "boolean"))
]
StringMetadata = Annotated[
    Any, BeforeValidator(_string_metadata), WithJsonSchema(_values("string"))
]
