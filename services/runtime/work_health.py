"""Whether a model can do its work: it ends in time, and it does not fail every time.

Of one kind of work that is done a piece at a time, by whatever thread. Knows nothing of what the
work is: a service asks here whether its replica has to be replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["WorkHealth"]

# So many pieces that failed in a row mean that the model is broken rather than an input.
_MAX_FAILURES = 3


class WorkHealth:
    """Any thread may call any method. `what` is the piece of work in words: "a batch"."""

    def __init__(
        self, what: str, stuck_after_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._stuck_after_s = stuck_after_s
        self._clock = clock
        self._num_failures = 0
        self._began_s: float | None = None  # None: nothing is to be done

    def began(self) -> None:
        """A piece of work is under way."""
        self._began_s = self._clock()

    def succeeded(self) -> None:
        """It has ended as it should."""
        self._began_s = None
        self._num_failures = 0

    def failed(self, *, blameless: bool = False) -> None:
        """It has ended with an error; `blameless`: which says nothing of the model."""
        self._began_s = None
        self._num_failures += not blameless

    @property
    def failure(self) -> str | None:
        """Why no work is to be expected any more; None = it goes on."""
        if self._num_failures >= _MAX_FAILURES:
            return f"{self._what} failed {self._num_failures} times in a row"
        began_s = self._began_s
        under_way_s = 0.0 if began_s is None else self._clock() - began_s
        if under_way_s > self._stuck_after_s:
            return f"{self._what} has been under way for {under_way_s:.0f} s"
        return None
