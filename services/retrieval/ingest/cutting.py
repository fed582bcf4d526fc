"""Cuts a stretch of text that is too long for one chunk, at the best places there are.

    block ends > empty lines > sentences (prose) or lines (code, tables, lists) > words > tokens

Each piece after the first repeats the last sentences or lines of the one before it. Knows nothing
of headings.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from services.retrieval.ingest.document import Block, BlockKind
from services.retrieval.ingest.lines import skip_space, trimmed
from services.retrieval.ingest.tokens import TokenIndex
from services.retrieval.types import ChunkingConfig

__all__ = ["Cutter"]

_EMPTY_LINE = re.compile(r"(?:\r\n|\n|\r)[ \t]*(?:\r\n|\n|\r)\s*")
_LINE = re.compile(r"(?:\r\n|\n|\r)\s*")
_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|(?:\r\n|\n|\r)(?=[ \t]*(?:[-*+•]|\d{1,4}[.)])[ \t])"
)
_WORD = re.compile(r"\s+")
_PROSE = (_EMPTY_LINE, _SENTENCE, _LINE, _WORD)
_LINES = (_EMPTY_LINE, _LINE, _WORD)


class Cutter:
    """Cuts stretches of one text into pieces of at most `config.max_tokens` tokens."""

    def __init__(self, text: str, tokens: TokenIndex, config: ChunkingConfig) -> None:
        self._text = text
        self._tokens = tokens
        self._max_tokens = config.max_tokens
        self._overlap_tokens = config.overlap_tokens

    def cut(self, blocks: Sequence[Block]) -> list[tuple[int, int]]:
        """The pieces of consecutive blocks, in order; their ends are free of white space."""
        starts = [block.start for block in blocks]
        end = blocks[-1].end
        pieces: list[tuple[int, int]] = []
        start = covered = blocks[0].start
        while self._tokens.size(start, end) > self._max_tokens:
            covered = self._cut_at(blocks, starts, start, covered)
            pieces.append(trimmed(self._text, start, covered))
            start = skip_space(self._text, self._overlap(blocks, starts, start, covered))
        pieces.append((start, end))
        return pieces

    def _cut_at(
        self, blocks: Sequence[Block], starts: Sequence[int], start: int, covered: int
    ) -> int:
        """Where the piece that begins at `start` ends; beyond `covered`, where the last one did."""
        limit = max(self._tokens.furthest(start, self._max_tokens), covered + 1)
        half = max(self._tokens.furthest(start, self._max_tokens // 2), covered)
        last = blocks[bisect_right(starts, limit) - 1]  # to begin within reach
        is_whole = self._tokens.size(last.start, last.end) <= self._max_tokens
        if last.start > covered and (is_whole or last.start >= half):
            return last.start
        for boundary in _boundaries(blocks, starts, limit - 1):
            ends = [match.end() for match in boundary.finditer(self._text, half, limit)]
            if ends and ends[-1] > covered:
                return ends[-1]
        return limit

    def _overlap(self, blocks: Sequence[Block], starts: Sequence[int], start: int, cut: int) -> int:
        """Where the piece after `cut` begins: a little before it, at a sentence, line or word."""
        if self._overlap_tokens == 0:
            return cut
        earliest = max(self._tokens.nearest(cut, self._overlap_tokens), start + 1)
        boundaries = _boundaries(blocks, starts, cut - 1)
        position = bisect_right(starts, cut) - 1
        if blocks[position].start == cut:
            is_prose = blocks[position - 1].kind is BlockKind.PARAGRAPH
            if not is_prose or self._fits_only_alone(blocks[position], earliest):
                return cut
            boundaries = boundaries[:-1]  # half a sentence adds nothing to a new paragraph
        for boundary in boundaries:
            match = boundary.search(self._text, earliest, cut)
            if match is not None and match.end() < cut:
                return match.end()
        return cut

    def _fits_only_alone(self, block: Block, start: int) -> bool:
        """Whether a block fits into a piece, but not together with the overlap before it."""
        return (
            self._tokens.size(block.start, block.end)
            <= self._max_tokens
            < self._tokens.size(start, block.end)
        )


def _boundaries(
    blocks: Sequence[Block], starts: Sequence[int], offset: int
) -> tuple[re.Pattern[str], ...]:
    """Where the block at `offset` may be cut, the best kind of place first."""
    block = blocks[max(0, bisect_right(starts, offset) - 1)]
    return _PROSE if block.kind is BlockKind.PARAGRAPH else _LINES
