"""The running sequences as arrays: one row per sequence, kept from step to step.

A step touches only what is new in each row, and gathers the rows it runs with one indexed copy.
Knows nothing of torch or of how blocks are allocated.

    row      block table                       free rows are handed out again
    0    [ 17 |  4 |  9 |  . |  . ]   seq_id 12
    1    [ 17 |  4 | 31 |  5 |  . ]   seq_id 15 (shares a prefix)
    2    [  . |  . |  . |  . |  . ]   free
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from services.engine.request import Sequence

if TYPE_CHECKING:
    from services.engine.scheduler import ScheduledSequence

__all__ = ["BatchState", "StepArrays"]


@dataclass(frozen=True, slots=True)
class StepArrays:
    """A step's flattened input. S = scheduled sequences, T = tokens of the step."""

    token_ids: npt.NDArray[np.int64]  # [T]
    num_computed_tokens: npt.NDArray[np.int64]  # [S]
    num_new_tokens: npt.NDArray[np.int64]  # [S]
    block_tables: npt.NDArray[np.int32]  # [S, most blocks of any of them]


class BatchState:
    """Block tables of the sequences that have run and are not released yet."""

    def __init__(self, max_num_seqs: int, max_blocks_per_seq: int, block_size: int) -> None:
        self._block_size = block_size
        self._block_tables = np.zeros((max_num_seqs, max_blocks_per_seq), dtype=np.int32)
        self._row_of: dict[int, int] = {}  # by seq_id
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))

    @property
    def num_rows_in_use(self) -> int:
        return len(self._row_of)

    def release(self, seq_id: int) -> None:
        """Gives the sequence's row back; a sequence without one (never run) is fine."""
        row = self._row_of.pop(seq_id, None)
        if row is not None:
            self._free_rows.append(row)

    def arrays(self, scheduled: list[ScheduledSequence]) -> StepArrays:
        """Brings the rows of `scheduled` up to date and gathers them."""
        rows = [self._update_row(item.seq) for item in scheduled]
        most_blocks = max(len(item.seq.block_ids) for item in scheduled)
        return StepArrays(
            token_ids=_new_token_ids(scheduled),
            num_computed_tokens=np.array([item.seq.num_computed_tokens for item in scheduled]),
            num_new_tokens=np.array([item.num_tokens for item in scheduled]),
            block_tables=self._block_tables[rows, :most_blocks],
        )

    def _update_row(self, seq: Sequence) -> int:
        """Copies the block ids that may have changed since the last step, and says the row.

        Blocks full of computed tokens are never replaced while a sequence runs; the ones that this
        step writes may be new, or a copy-on-write replacement.
        """
        row = self._row_of.get(seq.seq_id)
        first = seq.num_computed_tokens // self._block_size
        if row is None:
            row = self._row_of[seq.seq_id] = self._take_row()
            first = 0
        block_ids = seq.block_ids
        self._block_tables[row, first : len(block_ids)] = block_ids[first:]
        return row

    def _take_row(self) -> int:
        if not self._free_rows:  # forks and held beams can exceed the sequences that run at once
            rows = len(self._block_tables)
            self._block_tables = np.concatenate([self._block_tables, self._block_tables])
            self._free_rows = list(range(2 * rows - 1, rows - 1, -1))
        return self._free_rows.pop()


def _new_token_ids(scheduled: list[ScheduledSequence]) -> npt.NDArray[np.int64]:
    token_ids: list[int] = []
    for item in scheduled:
        start = item.seq.num_computed_tokens
        if item.num_tokens == 1:
            token_ids.append(item.seq.token_ids[start])
        else:
            token_ids += item.seq.token_ids[start : start + item.num_tokens]
    return np.array(token_ids, dtype=np.int64)
