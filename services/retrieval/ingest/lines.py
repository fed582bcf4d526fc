"""Where the lines of a text begin. A line ends with LF, CR LF or CR, as editors count."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right

__all__ = ["LineIndex", "skip_space", "trimmed"]

_NO_SPACE = re.compile(r"\S")
_LINE_END = re.compile(r"\r\n|\n|\r")


class LineIndex:
    """The lines of one text, counted from 0 in `starts` and from 1 in `number`."""

    def __init__(self, text: str) -> None:
        self.starts = array("q", [0])
        self.starts.extend(end.end() for end in _LINE_END.finditer(text))
        self._end = len(text)

    def __len__(self) -> int:
        return len(self.starts)

    def start(self, line: int) -> int:
        """Offset of line `line` (from 0); the end of the text for the line after the last."""
        return self.starts[line] if line < len(self.starts) else self._end

    def number(self, offset: int) -> int:
        """Number of the line, from 1, that has the character at `offset`."""
        return bisect_right(self.starts, offset)


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """`[start, end)` without white space at both ends; empty at `start` when there is no more."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left == len(piece):
        return start, start
    return start + left, start + len(piece.rstrip())


def skip_space(text: str, start: int) -> int:
    """The first offset from `start` on where there is no white space, or the end of the text."""
    match = _NO_SPACE.search(text, start)
    return match.start() if match is not None else len(text)
