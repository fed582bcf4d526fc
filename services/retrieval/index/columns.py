"""Metadata as typed columns, which filters are evaluated on.

A table has, per field and type, the rows that have such a value and the values. Strings are codes
into a sorted vocabulary, so that an order of strings is an order of numbers. Knows nothing of
segments or of what a filter is made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array, read_rows
from services.retrieval.index.strings import StringColumn
from services.retrieval.types import Metadata, MetadataValue

__all__ = ["Column", "FieldType", "MetadataTable", "ragged_rows", "type_of"]

Rows = npt.NDArray[np.int32]
RowMap = npt.NDArray[np.int32]  # [num_old_rows]: the new row, -1 = gone


class FieldType(StrEnum):
    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    STRING_LIST = "string_list"


_DTYPES: Mapping[FieldType, type[np.generic]] = {
    FieldType.STRING: np.int32,
    FieldType.NUMBER: np.float64,
    FieldType.BOOL: np.bool_,
    FieldType.STRING_LIST: np.int32,
}


def type_of(value: MetadataValue) -> FieldType:
    if isinstance(value, bool):
        return FieldType.BOOL
    if isinstance(value, int | float):
        return FieldType.NUMBER
    return FieldType.STRING if isinstance(value, str) else FieldType.STRING_LIST


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field's values of one type.

    `rows` [n] ascending; `values` [n], of a list [num_elements] with `offsets` [n + 1]; strings
    are codes into `vocabulary`, which is sorted.
    """

    type: FieldType
    rows: Rows
    values: npt.NDArray[Any]
    vocabulary: StringColumn | None = None
    offsets: npt.NDArray[np.int64] | None = None

    @staticmethod
    def of(kind: FieldType, rows: Sequence[int], values: Sequence[Any]) -> Column:
        at = np.array(rows, dtype=np.int32)
        if kind in (FieldType.NUMBER, FieldType.BOOL):
            return Column(kind, at, np.array(values, dtype=_DTYPES[kind]))
        lists = [(value,) for value in values] if kind is FieldType.STRING else values
        distinct = sorted({element for elements in lists for element in elements})
        code_of = {element: code for code, element in enumerate(distinct)}
        codes = [code_of[element] for elements in lists for element in elements]
        offsets = None
        if kind is FieldType.STRING_LIST:
            offsets = np.cumsum([0, *(len(elements) for elements in lists)], dtype=np.int64)
        return Column(kind, at, np.array(codes, dtype=np.int32), StringColumn.of(distinct), offsets)

    @property
    def nbytes(self) -> int:
        parts = (self.rows, self.values, self.vocabulary, self.offsets)
        return sum(int(part.nbytes) for part in parts if part is not None)


@dataclass(frozen=True, slots=True, eq=False)
class MetadataTable:
    """The columns of `num_rows` rows; a row has at most one value per field."""

    num_rows: int
    columns: Mapping[str, tuple[Column, ...]]

    @staticmethod
    def of(rows: Iterable[Metadata]) -> MetadataTable:
        found: dict[tuple[str, FieldType], tuple[list[int], list[MetadataValue]]] = {}
        num_rows = 0
        for row, metadata in enumerate(rows):
            num_rows = row + 1
            for name, value in metadata.items():
                at, values = found.setdefault((name, type_of(value)), ([], []))
                at.append(row)
                values.append(value)
        return MetadataTable(
            num_rows,
            _by_field(
                (name, Column.of(kind, at, values)) for (name, kind), (at, values) in found.items()
            ),
        )

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for columns in self.columns.values() for column in columns)

    @staticmethod
    def merged(
        tables: Sequence[MetadataTable], row_maps: Sequence[RowMap], num_rows: int
    ) -> MetadataTable:
        """One table of all, each row where its map says."""
        parts: dict[tuple[str, FieldType], list[tuple[Column, RowMap]]] = {}
        for table, row_map in zip(tables, row_maps, strict=True):
            for name, columns in table.columns.items():
                for column in columns:
                    parts.setdefault((name, column.type), []).append((column, row_map))
        made = ((name, _merged(kind, sources)) for (name, kind), sources in parts.items())
        return MetadataTable(num_rows, _by_field((n, column) for n, column in made if column))

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        columns = [(field, column) for field, several in self.columns.items() for column in several]
        names = StringColumn.of(json.dumps([field, column.type]) for field, column in columns)
        arrays = dict(names.to_arrays(f"{name}.names"))
        for number, (_, column) in enumerate(columns):
            key = f"{name}.{number}"
            arrays |= {f"{key}.rows": column.rows, f"{key}.values": column.values}
            if column.vocabulary is not None:
                arrays |= column.vocabulary.to_arrays(f"{key}.vocabulary")
            if column.offsets is not None:
                arrays[f"{key}.offsets"] = column.offsets
        return arrays

    @staticmethod
    def from_arrays(arrays: Arrays, name: str, num_rows: int) -> MetadataTable:
        columns: list[tuple[str, Column]] = []
        for number, spelt in enumerate(StringColumn.from_arrays(arrays, f"{name}.names")):
            try:
                field, kind = json.loads(spelt)
                kind = FieldType(kind)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name}.names: {number} is no name and type") from error
            columns.append((str(field), _read_column(arrays, f"{name}.{number}", kind, num_rows)))
        return MetadataTable(num_rows, _by_field(columns))


def ragged_rows(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the elements of the given rows of a ragged array stand, and the rows' new offsets."""
    starts, lengths = offsets[:-1][rows], np.diff(offsets)[rows]
    new_offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=new_offsets[1:])
    at = np.arange(new_offsets[-1]) + np.repeat(starts - new_offsets[:-1], lengths)
    return at, new_offsets


def _by_field(columns: Iterable[tuple[str, Column]]) -> dict[str, tuple[Column, ...]]:
    fields: dict[str, tuple[Column, ...]] = {}
    for name, column in columns:
        fields[name] = (*fields.get(name, ()), column)
    return fields


def _merged(kind: FieldType, sources: Sequence[tuple[Column, RowMap]]) -> Column | None:
    """None: no row of theirs is left."""
    new_rows = [row_map[column.rows] for column, row_map in sources]
    kept = [np.flatnonzero(rows >= 0) for rows in new_rows]
    rows = np.concatenate([new[keep] for new, keep in zip(new_rows, kept, strict=True)])
    if not len(rows):
        return None
    columns = [column for column, _ in sources]
    order = np.argsort(rows)
    vocabulary, codes = _one_vocabulary(columns, kept)
    if kind is not FieldType.STRING_LIST:
        values = np.concatenate([code[keep] for code, keep in zip(codes, kept, strict=True)])
        return Column(kind, rows[order], values[order], vocabulary)
    pieces, lengths = [], []
    for column, code, keep in zip(columns, codes, kept, strict=True):
        assert column.offsets is not None
        at, offsets = ragged_rows(column.offsets, keep)
        pieces.append(code[at])
        lengths.append(np.diff(offsets))
    joined = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    at, offsets = ragged_rows(joined, order)
    return Column(kind, rows[order], np.concatenate(pieces)[at], vocabulary, offsets)


def _one_vocabulary(
    columns: Sequence[Column], kept: Sequence[npt.NDArray[np.intp]]
) -> tuple[StringColumn | None, list[npt.NDArray[Any]]]:
    """The vocabulary of what is kept, and each column's values in its codes."""
    if columns[0].vocabulary is None:
        return None, [column.values for column in columns]
    used: list[dict[str, int]] = []  # per column: the string's old code
    for column, keep in zip(columns, kept, strict=True):
        assert column.vocabulary is not None
        at = keep if column.offsets is None else ragged_rows(column.offsets, keep)[0]
        codes = np.unique(column.values[at])
        strings = column.vocabulary.take(codes)
        used.append(dict(zip(strings, codes.tolist(), strict=True)))
    distinct = sorted(set().union(*used))
    new_code = {string: code for code, string in enumerate(distinct)}
    recoded = []
    for column, strings_of in zip(columns, used, strict=True):
        assert column.vocabulary is not None
        table = np.full(len(column.vocabulary), -1, dtype=np.int32)
        for string, code in strings_of.items():
            table[code] = new_code[string]
        recoded.append(table[column.values])
    return StringColumn.of(distinct), recoded


def _read_column(arrays: Arrays, key: str, kind: FieldType, num_rows: int) -> Column:
    rows = read_rows(arrays, f"{key}.rows", (None,), num_rows)
    if (np.diff(rows) <= 0).any():
        raise ValueError(f"{key}.rows: not ascending")
    offsets = None
    size: int | None = len(rows)
    if kind is FieldType.STRING_LIST:
        offsets = read_array(arrays, f"{key}.offsets", np.int64, (len(rows) + 1,))
        size = int(offsets[-1])
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError(f"{key}.offsets: not ascending from 0")
    if kind in (FieldType.NUMBER, FieldType.BOOL):
        return Column(kind, rows, read_array(arrays, f"{key}.values", _DTYPES[kind], (size,)))
    vocabulary = StringColumn.from_arrays(arrays, f"{key}.vocabulary")
    codes = read_rows(arrays, f"{key}.values", (size,), len(vocabulary))
    return Column(kind, rows, codes, vocabulary, offsets)
