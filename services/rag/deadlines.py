"""How the time of a question is split over its stages.

    arrival                                                     end     deadline
    |-- embed --|-- search --|-- pack --|------ generate -------|-------|
                             ^ cut-off of `search`: what is kept for the stages after it, each its
                               share of the whole, is not its to spend

The server ends a margin before the deadline, so that the caller is told which stage spent the time
instead of giving up by itself. A stage inherits what earlier ones left over. Knows no service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Budget", "end_before"]

MARGIN_SHARE = 0.1
MAX_MARGIN_S = 0.05


def end_before(arrival_s: float, deadline_s: float) -> float:
    """When the server must have answered: the deadline less min(10 % of the time, 50 ms)."""
    return deadline_s - min(MARGIN_SHARE * max(0.0, deadline_s - arrival_s), MAX_MARGIN_S)


@dataclass(frozen=True, slots=True)
class Budget:
    """`[start_s, end_s]` on `time.monotonic`, and the share of it that is kept for each stage.

    `stages` are those that will run, in order; a stage without a share has nothing kept for it.
    """

    start_s: float
    end_s: float
    shares: Mapping[str, float]
    stages: Sequence[str] = ()

    def cutoff_s(self, stage: str) -> float:
        """When `stage` must have ended. One that is not planned may take all the time."""
        if stage not in self.stages:
            return self.end_s
        later = self.stages[list(self.stages).index(stage) + 1 :]
        kept = sum(self.shares.get(name, 0.0) for name in later)
        return self.end_s - kept * (self.end_s - self.start_s)
