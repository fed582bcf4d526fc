"""Filters over metadata, built from Python.

    from orrery import where

    client.search("docs", "storms", filter=(where("year") >= 1900) & ~where("kind").in_(["ship"]))

`document_id` and `file_name` can be compared like metadata. On a list of strings, `==` and `in_`
ask whether some element matches. A chunk without the field matches `!=` and `not_in` alone.
`orrery.filter_syntax` reads the same from a text. Knows nothing of protobuf.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from orrery.errors import InvalidRequestError

__all__ = [
    "KEYWORDS",
    "Combination",
    "Comparison",
    "Field",
    "Filter",
    "FilterValue",
    "is_double",
    "where",
]

FilterValue: TypeAlias = str | float | bool
ComparisonOperator: TypeAlias = Literal[
    "eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "exists"
]

KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false"})
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_SYMBOLS: dict[str, str] = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator values`. `exists` has no values, `in` and `not_in` have some, others one."""

    field: str
    operator: ComparisonOperator
    values: tuple[FilterValue, ...] = ()

    def __str__(self) -> str:
        name = self.field
        if not _PLAIN_NAME.fullmatch(name) or name.lower() in KEYWORDS:
            name = "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
        if self.operator == "exists":
            return f"{name} exists"
        if self.operator in ("in", "not_in"):
            values = ", ".join(_literal(value) for value in self.values)
            return f"{name} {self.operator.replace('_', ' ')} ({values})"
        return f"{name} {_SYMBOLS[self.operator]} {_literal(self.values[0])}"


@dataclass(frozen=True, slots=True)
class Combination:
    """All of the parts hold (`and`), at least one does (`or`), or the only one does not (`not`)."""

    kind: Literal["and", "or", "not"]
    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        if self.kind == "not":
            return f"not ({self.parts[0]})"
        return f" {self.kind} ".join(f"({part})" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on documents; `&`, `|` and `~` combine them. `str` gives it as a text."""

    node: Comparison | Combination

    def __and__(self, other: Filter) -> Filter:
        return _combine("and", self, other)

    def __or__(self, other: Filter) -> Filter:
        return _combine("or", self, other)

    def __invert__(self) -> Filter:
        return Filter(Combination("not", (self,)))

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a filter is neither true nor false: combine filters by &, | and ~ (with parentheses "
            "around comparisons), not by and, or, not or a chain of comparisons"
        )

    def __str__(self) -> str:
        return str(self.node)


def _combine(kind: Literal["and", "or"], one: Filter, other: Filter) -> Filter:
    if not isinstance(other, Filter):
        return NotImplemented
    parts: tuple[Filter, ...] = ()
    for part in (one, other):
        node = part.node
        same = isinstance(node, Combination) and node.kind == kind
        parts += node.parts if isinstance(node, Combination) and same else (part,)
    return Filter(Combination(kind, parts))


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of the metadata; comparing it makes a `Filter`."""

    name: str

    def __eq__(self, value: FilterValue) -> Filter:  # type: ignore[override]
        return self._compare("eq", value)

    def __ne__(self, value: FilterValue) -> Filter:  # type: ignore[override]
        return self._compare("ne", value)

    def __gt__(self, value: FilterValue) -> Filter:
        return self._compare("gt", value)

    def __ge__(self, value: FilterValue) -> Filter:
        return self._compare("gte", value)

    def __lt__(self, value: FilterValue) -> Filter:
        return self._compare("lt", value)

    def __le__(self, value: FilterValue) -> Filter:
        return self._compare("lte", value)

    def in_(self, values: Iterable[FilterValue]) -> Filter:
        """The value is one of these."""
        return self._compare("in", *_several(self.name, values))

    def not_in(self, values: Iterable[FilterValue]) -> Filter:
        """The value is none of these, or the field is not there."""
        return self._compare("not_in", *_several(self.name, values))

    def exists(self) -> Filter:
        """The field is there, whatever its value."""
        return self._compare("exists")

    def _compare(self, operator: ComparisonOperator, *values: FilterValue) -> Filter:
        checked = tuple(_checked(self.name, value) for value in values)
        return Filter(Comparison(self.name, operator, checked))


def where(field: str) -> Field:
    """A field of the metadata, to be compared with a text, a number or a bool.

    Raises:
        TypeError: `field` is no text.
        InvalidRequestError: It is empty.
    """
    if not isinstance(field, str):
        raise TypeError(f"where: expected the name of a field, got {type(field).__name__}")
    if not field:
        raise InvalidRequestError("filter: expected the name of a field", field="filter")
    return Field(field)


def _several(name: str, values: Iterable[FilterValue]) -> tuple[FilterValue, ...]:
    if isinstance(values, str):
        raise TypeError(f"filter: {name}: expected several values, got one text")
    found = tuple(values)
    if not found:
        raise InvalidRequestError(f"filter: {name}: expected at least one value", field="filter")
    return found


def _checked(name: str, value: FilterValue) -> FilterValue:
    if not isinstance(value, str | bool | int | float):
        raise TypeError(
            f"filter: {name}: expected a text, a number or a bool, got {type(value).__name__}"
        )
    if isinstance(value, int | float) and not is_double(value):
        raise InvalidRequestError(
            f"filter: {name}: expected a finite number that fits a double", field="filter"
        )
    return value


def is_double(value: float) -> bool:
    """Whether a number is finite, and not an integer beyond what a double can be."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _literal(value: FilterValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
