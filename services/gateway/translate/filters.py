"""Metadata and filters in OpenAI's form -> the contract's. They were checked by `schemas`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from orrery.v1 import retrieval_pb2 as pb
from services.gateway.schemas.filters import LISTS

__all__ = ["metadata_filter", "metadata_values"]

_OPERATORS = MappingProxyType(
    {
        "eq": pb.FILTER_OPERATOR_EQ,
        "ne": pb.FILTER_OPERATOR_NE,
        "gt": pb.FILTER_OPERATOR_GT,
        "gte": pb.FILTER_OPERATOR_GTE,
        "lt": pb.FILTER_OPERATOR_LT,
        "lte": pb.FILTER_OPERATOR_LTE,
        "in": pb.FILTER_OPERATOR_IN,
        "nin": pb.FILTER_OPERATOR_NOT_IN,
        "exists": pb.FILTER_OPERATOR_EXISTS,
    }
)


def metadata_filter(value: Mapping[str, Any] | None) -> pb.Filter | None:
    """A filter, or None for none."""
    return None if value is None else _filter(value)


def metadata_values(metadata: Mapping[str, Any] | None) -> dict[str, pb.MetadataValue]:
    """The fields of a document's metadata; none for None."""
    return {key: _value(value) for key, value in (metadata or {}).items()}


def _filter(value: Mapping[str, Any]) -> pb.Filter:
    kind = value["type"]
    if kind == "and":
        return pb.Filter(all_of=pb.Filters(filters=map(_filter, value["filters"])))
    if kind == "or":
        return pb.Filter(any_of=pb.Filters(filters=map(_filter, value["filters"])))
    if kind == "not":
        inverted = pb.Filter()
        getattr(inverted, "not").CopyFrom(_filter(value["filter"]))  # a word of Python's own
        return inverted
    values = () if kind == "exists" else value["value"] if kind in LISTS else (value["value"],)
    comparison = pb.Comparison(
        field=value["key"], operator=_OPERATORS[kind], values=map(_value, values)
    )
    return pb.Filter(comparison=comparison)


def _value(value: str | float | bool | list[str]) -> pb.MetadataValue:
    if isinstance(value, str):
        return pb.MetadataValue(string_value=value)
    if isinstance(value, bool):
        return pb.MetadataValue(bool_value=value)
    if isinstance(value, list):
        return pb.MetadataValue(string_list=pb.StringList(values=value))
    return pb.MetadataValue(number_value=value)
