"""A segment's documents and chunks as columns; documents by id, chunks by document and ordinal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array
from services.retrieval.index.columns import MetadataTable, RowMap
from services.retrieval.index.strings import StringColumn
from services.retrieval.types import (
    Chunk,
    DocumentInfo,
    IndexedDocument,
    Metadata,
    MetadataValue,
)

__all__ = ["FILE_NAME", "ChunkTable", "DocumentTable", "IdLookup"]

FILE_NAME = "file_name"  # compared like metadata
_DOCUMENT_STRINGS = ("ids", "titles", "file_names", "media_types", "content_hashes", "spelt")
_DOCUMENT_NUMBERS = ("num_bytes", "written_at_ms")
_CHUNK_STRINGS = ("texts", "title_paths", "spelt")
_CHUNK_NUMBERS = ("starts", "ends", "lines_start", "lines_end", "pages")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DocumentTable:
    """[num_documents], ids ascending. Document i has the rows `[row_offsets[i], [i + 1])`."""

    ids: StringColumn
    titles: StringColumn
    file_names: StringColumn
    media_types: StringColumn
    content_hashes: StringColumn
    spelt: StringColumn  # the metadata as JSON, empty = none
    num_bytes: Numbers
    written_at_ms: Numbers
    row_offsets: Numbers
    metadata: MetadataTable  # with the file name

    @staticmethod
    def of(documents: Sequence[IndexedDocument]) -> DocumentTable:
        infos = [document.info for document in documents]
        return DocumentTable(
            ids=StringColumn.of(info.id for info in infos),
            titles=StringColumn.of(info.title for info in infos),
            file_names=StringColumn.of(info.file_name for info in infos),
            media_types=StringColumn.of(info.media_type for info in infos),
            content_hashes=StringColumn.of(info.content_hash for info in infos),
            spelt=StringColumn.of(spell_metadata(info.metadata) for info in infos),
            num_bytes=np.array([info.num_bytes for info in infos], dtype=np.int64),
            written_at_ms=np.array([info.written_at_ms for info in infos], dtype=np.int64),
            row_offsets=np.cumsum([0, *(len(d.chunks) for d in documents)], dtype=np.int64),
            metadata=MetadataTable.of(_comparable(info) for info in infos),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return _nbytes(self)

    def info(self, document: int) -> DocumentInfo:
        return DocumentInfo(
            id=self.ids[document],
            title=self.titles[document],
            file_name=self.file_names[document],
            media_type=self.media_types[document],
            content_hash=self.content_hashes[document],
            num_bytes=int(self.num_bytes[document]),
            written_at_ms=int(self.written_at_ms[document]),
            metadata=read_metadata(self.spelt[document]),
        )

    @staticmethod
    def merged(
        tables: Sequence[DocumentTable],
        order: npt.NDArray[np.int64],
        row_offsets: Numbers,
        maps: Sequence[RowMap],
    ) -> DocumentTable:
        """Rows `order` of all tables one after another; `maps` says the same per table."""
        columns = _taken(tables, order, _DOCUMENT_STRINGS, _DOCUMENT_NUMBERS)
        metadata = MetadataTable.merged([table.metadata for table in tables], maps, len(order))
        return DocumentTable(**columns, row_offsets=row_offsets, metadata=metadata)

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        columns = _to_arrays(self, name, _DOCUMENT_STRINGS, (*_DOCUMENT_NUMBERS, "row_offsets"))
        return columns | self.metadata.to_arrays(f"{name}.metadata")

    @staticmethod
    def from_arrays(arrays: Arrays, name: str) -> DocumentTable:
        num_documents = len(StringColumn.from_arrays(arrays, f"{name}.ids"))
        columns = _from_arrays(arrays, name, num_documents, (_DOCUMENT_STRINGS, _DOCUMENT_NUMBERS))
        offsets = read_array(arrays, f"{name}.row_offsets", np.int64, (num_documents + 1,))
        if offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError(f"{name}.row_offsets: not ascending from 0")
        metadata = MetadataTable.from_arrays(arrays, f"{name}.metadata", num_documents)
        table = DocumentTable(**columns, row_offsets=offsets, metadata=metadata)
        ids = list(table.ids)
        if any(first >= second for first, second in pairwise(ids)):
            raise ValueError(f"{name}.ids: not ascending")
        return table


@dataclass(frozen=True, slots=True, eq=False)
class ChunkTable:
    """[num_rows]"""

    texts: StringColumn
    title_paths: StringColumn  # as JSON, empty = none
    spelt: StringColumn  # their own metadata as JSON, empty = none
    starts: Numbers
    ends: Numbers
    lines_start: Numbers
    lines_end: Numbers
    pages: Numbers
    metadata: MetadataTable  # their own

    @staticmethod
    def of(chunks: Sequence[Chunk]) -> ChunkTable:
        return ChunkTable(
            texts=StringColumn.of(chunk.text for chunk in chunks),
            title_paths=StringColumn.of(
                json.dumps(chunk.title_path) if chunk.title_path else "" for chunk in chunks
            ),
            spelt=StringColumn.of(spell_metadata(chunk.metadata) for chunk in chunks),
            starts=np.array([chunk.start for chunk in chunks], dtype=np.int64),
            ends=np.array([chunk.end for chunk in chunks], dtype=np.int64),
            lines_start=np.array([chunk.line_start for chunk in chunks], dtype=np.int64),
            lines_end=np.array([chunk.line_end for chunk in chunks], dtype=np.int64),
            pages=np.array([chunk.page for chunk in chunks], dtype=np.int64),
            metadata=MetadataTable.of(chunk.metadata for chunk in chunks),
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def nbytes(self) -> int:
        return _nbytes(self)

    def chunk(self, row: int) -> Chunk:
        path = self.title_paths[row]
        return Chunk(
            text=self.texts[row],
            start=int(self.starts[row]),
            end=int(self.ends[row]),
            title_path=tuple(json.loads(path)) if path else (),
            line_start=int(self.lines_start[row]),
            line_end=int(self.lines_end[row]),
            page=int(self.pages[row]),
            metadata=read_metadata(self.spelt[row]),
        )

    @staticmethod
    def merged(
        tables: Sequence[ChunkTable], order: npt.NDArray[np.int64], maps: Sequence[RowMap]
    ) -> ChunkTable:
        columns = _taken(tables, order, _CHUNK_STRINGS, _CHUNK_NUMBERS)
        metadata = MetadataTable.merged([table.metadata for table in tables], maps, len(order))
        return ChunkTable(**columns, metadata=metadata)

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        columns = _to_arrays(self, name, _CHUNK_STRINGS, _CHUNK_NUMBERS)
        return columns | self.metadata.to_arrays(f"{name}.metadata")

    @staticmethod
    def from_arrays(arrays: Arrays, name: str, num_rows: int) -> ChunkTable:
        columns = _from_arrays(arrays, name, num_rows, (_CHUNK_STRINGS, _CHUNK_NUMBERS))
        metadata = MetadataTable.from_arrays(arrays, f"{name}.metadata", num_rows)
        return ChunkTable(**columns, metadata=metadata)


class IdLookup:
    """Finds many documents of a table at once, by the hashes of their ids."""

    def __init__(self, ids: StringColumn) -> None:
        hashes = hash_ids(ids)
        self._ids = ids
        self._order = np.argsort(hashes).astype(np.int32)
        self._hashes = hashes[self._order]

    @property
    def nbytes(self) -> int:
        return int(self._order.nbytes + self._hashes.nbytes)

    def find(self, ids: Sequence[str], hashes: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """(position in `ids`, document) of those that are there. `hashes` = `hash_ids(ids)`."""
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.searchsorted(self._hashes, hashes, side="right")
        found: list[tuple[int, int]] = []
        for position in np.flatnonzero(last > first).tolist():
            for at in range(first[position], last[position]):
                document = int(self._order[at])
                if self._ids[document] == ids[position]:
                    found.append((position, document))
        return found


def hash_ids(ids: Sequence[str] | StringColumn) -> npt.NDArray[np.int64]:
    return np.fromiter((hash(value) for value in ids), np.int64, len(ids))


def spell_metadata(metadata: Metadata) -> str:
    """As JSON; numbers as doubles, so that they come back as what they are."""
    if not metadata:
        return ""
    return json.dumps({name: _plain(value) for name, value in metadata.items()})


def read_metadata(spelt: str) -> dict[str, MetadataValue]:
    if not spelt:
        return {}
    values = json.loads(spelt).items()
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values}


def _plain(value: MetadataValue) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _comparable(info: DocumentInfo) -> Metadata:
    if info.file_name:
        return {**info.metadata, FILE_NAME: info.file_name}
    return {name: value for name, value in info.metadata.items() if name != FILE_NAME}


def _taken(
    tables: Sequence[Any],
    order: npt.NDArray[np.int64],
    strings: Sequence[str],
    numbers: Sequence[str],
) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: StringColumn.concat([getattr(table, name) for table in tables]).take(order)
        for name in strings
    }
    for name in numbers:
        columns[name] = np.concatenate([getattr(table, name) for table in tables])[order]
    return columns


def _to_arrays(
    table: Any, name: str, strings: Sequence[str], numbers: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    arrays = {f"{name}.{column}": getattr(table, column) for column in numbers}
    for column in strings:
        arrays |= getattr(table, column).to_arrays(f"{name}.{column}")
    return arrays


def _from_arrays(
    arrays: Arrays, name: str, num_rows: int, columns: tuple[Sequence[str], Sequence[str]]
) -> dict[str, Any]:
    strings, numbers = columns
    read: dict[str, Any] = {
        column: StringColumn.from_arrays(arrays, f"{name}.{column}", num_rows) for column in strings
    }
    for column in numbers:
        read[column] = read_array(arrays, f"{name}.{column}", np.int64, (num_rows,))
    return read


def _nbytes(table: Any) -> int:
    return sum(int(getattr(table, column.name).nbytes) for column in fields(table))
