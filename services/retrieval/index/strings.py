"""Columns of strings without a Python object for each: one blob of UTF-8 and offsets into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array

__all__ = ["StringColumn"]

_BLOCK = 4096  # rows copied at a time, so that other threads get their turn
# Text may hold lone surrogates (JSON can spell them): kept rather than refused.
_ERRORS = "surrogatepass"


@dataclass(frozen=True, slots=True, eq=False)
class StringColumn:
    """Immutable. `blob` [num_bytes], `offsets` [n + 1]: row i is `[offsets[i], offsets[i + 1])`."""

    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    @staticmethod
    def of(values: Iterable[str]) -> StringColumn:
        encoded = [value.encode("utf-8", _ERRORS) for value in values]
        return _join(encoded)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.raw(row).decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        bounds = self.offsets.tolist()
        view = self.blob.data
        for start, end in pairwise(bounds):
            yield str(view[start:end], "utf-8", _ERRORS)

    def raw(self, row: int) -> bytes:
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes()

    @property
    def nbytes(self) -> int:
        return int(self.blob.nbytes + self.offsets.nbytes)

    def bisect(self, value: str, *, right: bool = False) -> int:
        """Where `value` would stand among rows sorted by code point; as module `bisect` says it."""
        wanted = value.encode("utf-8", _ERRORS)  # UTF-8 sorts as the code points do
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self.raw(middle)
            if found < wanted or (right and found == wanted):
                low = middle + 1
            else:
                high = middle
        return low

    def take(self, rows: npt.NDArray[np.integer]) -> StringColumn:
        """A column of the given rows, in their order."""
        starts, ends = self.offsets[:-1][rows], self.offsets[1:][rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
        blob = np.empty(int(offsets[-1]), dtype=np.uint8)
        view = self.blob.data
        for first in range(0, len(rows), _BLOCK):
            last = min(first + _BLOCK, len(rows))
            bounds = zip(starts[first:last].tolist(), ends[first:last].tolist(), strict=True)
            piece = b"".join([view[start:end] for start, end in bounds])
            blob[offsets[first] : offsets[last]] = np.frombuffer(piece, dtype=np.uint8)
        return StringColumn(blob, offsets)

    @staticmethod
    def concat(columns: Sequence[StringColumn]) -> StringColumn:
        if not columns:
            return StringColumn.of(())
        shifts = np.cumsum([0, *(column.offsets[-1] for column in columns[:-1])])
        offsets = [
            column.offsets[1:] + shift for column, shift in zip(columns, shifts, strict=True)
        ]
        return StringColumn(
            np.concatenate([column.blob[: column.offsets[-1]] for column in columns]),
            np.concatenate([np.zeros(1, dtype=np.int64), *offsets]),
        )

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        return {f"{name}.blob": self.blob, f"{name}.offsets": self.offsets}

    @staticmethod
    def from_arrays(arrays: Arrays, name: str, num_rows: int | None = None) -> StringColumn:
        """Raises ValueError where they are no column of `num_rows` strings."""
        blob = read_array(arrays, f"{name}.blob", np.uint8, (None,))
        shape = None if num_rows is None else num_rows + 1
        offsets = read_array(arrays, f"{name}.offsets", np.int64, (shape,))
        whole = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(blob)
        if not whole or (np.diff(offsets) < 0).any():
            raise ValueError(f"{name}.offsets: does not divide the {len(blob)} bytes of its blob")
        return StringColumn(blob, offsets)


def _join(encoded: list[bytes]) -> StringColumn:
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return StringColumn(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)
