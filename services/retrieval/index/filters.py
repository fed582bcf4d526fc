"""Filters evaluated on metadata columns, vectorised; and filters that make no sense, refused.

    EQ, IN, GT, GTE, LT, LTE   a value of the comparison's type for which it holds; in a list of
                               strings EQ and IN hold where some element matches, the orders never
    NE, NOT_IN                 a value of the comparison's type for which EQ or IN does not hold, or
                               no value of the field at all
    EXISTS                     a value of any type

Strings are ordered by code points. A NaN equals nothing and is in no order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from services.retrieval.index.columns import Column, FieldType, MetadataTable, type_of
from services.retrieval.index.strings import StringColumn
from services.retrieval.types import AllOf, AnyOf, Comparison, Filter, MetadataValue, Not, Operator
from services.runtime.errors import InvalidRequest

__all__ = ["Mask", "check_comparisons", "compare", "evaluate", "filter_key"]

Mask = npt.NDArray[np.bool_]  # [num_rows]

_ORDERS = frozenset({Operator.GT, Operator.GTE, Operator.LT, Operator.LTE})
_SETS = frozenset({Operator.IN, Operator.NOT_IN})
NEGATIONS = frozenset({Operator.NE, Operator.NOT_IN})
# What a value of the first type is compared with.
_COMPARABLE: Mapping[FieldType, tuple[FieldType, ...]] = {
    FieldType.STRING: (FieldType.STRING, FieldType.STRING_LIST),
    FieldType.NUMBER: (FieldType.NUMBER,),
    FieldType.BOOL: (FieldType.BOOL,),
}


def evaluate(condition: Filter, comparison: Callable[[Comparison], Mask], num_rows: int) -> Mask:
    """The rows where the filter holds; `comparison` says it for each of its comparisons."""
    match condition:
        case Comparison():
            return comparison(condition)
        case Not(inner):
            return ~evaluate(inner, comparison, num_rows)
        case AllOf(filters):
            mask = np.ones(num_rows, dtype=np.bool_)
            for inner in filters:
                mask &= evaluate(inner, comparison, num_rows)
        case AnyOf(filters):
            mask = np.zeros(num_rows, dtype=np.bool_)
            for inner in filters:
                mask |= evaluate(inner, comparison, num_rows)
    return mask


def compare(table: MetadataTable, comparison: Comparison) -> tuple[Mask, Mask]:
    """(rows with a value that matches, rows with a value): both of this table alone.

    The caller adds the rows without any value where the operator is a negation.
    """
    matched = np.zeros(table.num_rows, dtype=np.bool_)
    valued = np.zeros(table.num_rows, dtype=np.bool_)
    for column in table.columns.get(comparison.field, ()):
        valued[column.rows] = True
        if comparison.operator is Operator.EXISTS:
            matched[column.rows] = True
        elif column.type in _COMPARABLE[type_of(comparison.values[0])]:
            matched[column.rows[_holds(column, comparison)]] = True
    return matched, valued


def check_comparisons(condition: Filter, fields: Mapping[str, frozenset[str]]) -> None:
    """Raises InvalidRequest for a comparison that cannot be made, naming its field.

    `fields` are the fields that there are, each with its types; empty: any name and type will do.
    """
    match condition:
        case Comparison():
            _check_comparison(condition, fields)
        case Not(inner):
            check_comparisons(inner, fields)
        case AllOf(filters) | AnyOf(filters):
            for inner in filters:
                check_comparisons(inner, fields)


def filter_key(condition: Filter | None) -> Hashable:
    """Equal for equal filters alone; to Python, those with 1 and with True are equal."""
    match condition:
        case Comparison(field, operator, values):
            return (field, operator, tuple((type_of(value), value) for value in values))
        case Not(inner):
            return ("not", filter_key(inner))
        case AllOf(filters):
            return ("all", *(filter_key(inner) for inner in filters))
        case AnyOf(filters):
            return ("any", *(filter_key(inner) for inner in filters))
    return None


def _holds(column: Column, comparison: Comparison) -> Mask:
    """[len(column.rows)]"""
    operator, values = comparison.operator, comparison.values
    if operator in _ORDERS:
        if column.type is FieldType.STRING_LIST:
            return np.zeros(len(column.rows), dtype=np.bool_)
        return _in_order(column, operator, values[0])
    wanted = _in_values_of(column, values)
    if column.type is FieldType.NUMBER and len(wanted) > 1:
        # np.isin takes NaNs for equal
        wanted = wanted[~np.isnan(wanted)]
    found = column.values == wanted[0] if len(wanted) == 1 else np.isin(column.values, wanted)
    if column.offsets is not None:  # any of the row's elements
        before = np.concatenate([[0], np.cumsum(found)])
        found = before[column.offsets[1:]] > before[column.offsets[:-1]]
    return ~found if operator in NEGATIONS else found


def _in_values_of(column: Column, values: tuple[MetadataValue, ...]) -> npt.NDArray[Any]:
    """The values as the column spells them; a string that it does not have has no code."""
    if column.vocabulary is None:
        return np.array(values, dtype=column.values.dtype)
    codes = (_code(column.vocabulary, str(value)) for value in values)
    return np.array([code for code in codes if code is not None], dtype=np.int32)


def _code(vocabulary: StringColumn, value: str) -> int | None:
    at = vocabulary.bisect(value)
    return at if at < len(vocabulary) and vocabulary[at] == value else None


def _in_order(column: Column, operator: Operator, value: MetadataValue) -> Mask:
    values: npt.NDArray[Any] = column.values
    bound: Any = value
    if column.vocabulary is not None:
        # codes from the bound on are the strings >= value, or > value
        bound = column.vocabulary.bisect(str(value), right=operator in (Operator.GT, Operator.LTE))
        upwards = operator in (Operator.GT, Operator.GTE)
        return np.asarray(values >= bound if upwards else values < bound)
    match operator:
        case Operator.GT:
            return np.asarray(values > bound)
        case Operator.GTE:
            return np.asarray(values >= bound)
        case Operator.LT:
            return np.asarray(values < bound)
        case _:
            return np.asarray(values <= bound)


def _check_comparison(comparison: Comparison, fields: Mapping[str, frozenset[str]]) -> None:
    name, operator, values = comparison.field, comparison.operator, comparison.values
    if fields and name not in fields:
        raise _refused(f"no document has the field {name!r}")
    if operator is Operator.EXISTS:
        if values:
            raise _refused(f"{name!r}: exists takes no values")
        return
    if not values or (len(values) > 1 and operator not in _SETS):
        needed = "at least one value" if operator in _SETS else "exactly one value"
        raise _refused(f"{name!r}: {operator} takes {needed}, not {len(values)}")
    kinds = {type_of(value) for value in values}
    if len(kinds) > 1:
        raise _refused(f"{name!r}: the values are of several types: {', '.join(sorted(kinds))}")
    (kind,) = kinds
    if kind not in _COMPARABLE:
        raise _refused(f"{name!r}: a list of strings is compared with a string, not with a list")
    if operator in _ORDERS and kind is FieldType.BOOL:
        raise _refused(f"{name!r}: {operator} compares numbers or strings, not bool")
    there = fields.get(name, frozenset())
    comparable = set(_COMPARABLE[kind])
    if operator in _ORDERS:
        comparable.discard(FieldType.STRING_LIST)
    if there and not comparable & there:
        held = " or ".join(sorted(there))
        raise _refused(f"{name!r} is {held}: {operator} with a {kind} matches nothing")


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, field="filter")
