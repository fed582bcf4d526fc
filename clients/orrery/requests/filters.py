"""Filters and metadata as messages of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orrery.documents import MetadataInput
from orrery.errors import InvalidRequestError
from orrery.filters import Combination, Filter, is_double
from orrery.requests.common import assign
from orrery.v1 import retrieval_pb2 as pb

__all__ = ["build_filter", "fill_metadata"]

_OPERATORS = {
    "eq": pb.FILTER_OPERATOR_EQ,
    "ne": pb.FILTER_OPERATOR_NE,
    "in": pb.FILTER_OPERATOR_IN,
    "not_in": pb.FILTER_OPERATOR_NOT_IN,
    "gt": pb.FILTER_OPERATOR_GT,
    "gte": pb.FILTER_OPERATOR_GTE,
    "lt": pb.FILTER_OPERATOR_LT,
    "lte": pb.FILTER_OPERATOR_LTE,
    "exists": pb.FILTER_OPERATOR_EXISTS,
}


def build_filter(condition: Filter) -> pb.Filter:
    """A filter as the contract has it.

    Raises:
        TypeError: It is no filter.
        InvalidRequestError: A name or text in it is not Unicode.
    """
    if not isinstance(condition, Filter):
        raise TypeError(
            f"filter: expected a Filter (see orrery.where), got {type(condition).__name__}"
        )
    message, node = pb.Filter(), condition.node
    if isinstance(node, Combination):
        parts = [build_filter(part) for part in node.parts]
        if node.kind == "not":
            getattr(message, "not").CopyFrom(parts[0])
        else:
            group = message.all_of if node.kind == "and" else message.any_of
            group.filters.extend(parts)
        return message
    assign(message.comparison, "field", node.field, "filter")
    message.comparison.operator = _OPERATORS[node.operator]
    for value in node.values:
        _fill_value(message.comparison.values.add(), value, f"filter.{node.field}")
    return message


def fill_metadata(target: Any, metadata: MetadataInput, field: str) -> None:
    """Puts values into a `map<string, MetadataValue>`.

    Raises:
        TypeError: A name is no text, or a value neither text, number, bool nor list of texts.
        InvalidRequestError: A number is not finite, or a text is not Unicode.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"{field}: expected names with values, got {type(metadata).__name__}")
    for name, value in metadata.items():
        where = f"{field}.{name}"
        if not isinstance(name, str):
            raise TypeError(f"{field}: expected texts as names, got {type(name).__name__}")
        try:
            _fill_value(target[name], value, where)
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"{field}: {error}", field=field) from error


def _fill_value(message: pb.MetadataValue, value: Any, where: str) -> None:
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        if not is_double(value):
            raise InvalidRequestError(
                f"{where}: expected a finite number that fits a double", field=where
            )
        message.number_value = value
    elif isinstance(value, str):
        assign(message, "string_value", value, where)
    elif isinstance(value, list | tuple):
        message.string_list.SetInParent()
        assign(message.string_list, "values", value, where)
    else:
        raise TypeError(
            f"{where}: expected a text, a number, a bool or a list of texts, "
            f"got {type(value).__name__}"
        )
