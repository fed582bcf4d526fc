"""Which questions are being answered, and in which stage each is; refuses those too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from services.runtime.errors import Overloaded

__all__ = ["Running"]

_RETRY_AFTER_S = 1.0


class Running:
    """Counts on one event loop.

    `observe` is told at each change how many questions are being answered, `observe_usage` which
    share of the places for them is taken.
    """

    def __init__(
        self,
        max_running: int,
        observe: Callable[[int], None],
        observe_usage: Callable[[float], None],
    ) -> None:
        self._max_running = max_running
        self._observe = observe
        self._observe_usage = observe_usage
        self._num_admitted = 0
        self._num_running = 0
        self._num_done = 0
        self._by_stage: Counter[str] = Counter()

    @property
    def num_running(self) -> int:
        return self._num_running

    @property
    def num_done(self) -> int:
        """Questions that ended, with an answer or without."""
        return self._num_done

    @property
    def by_stage(self) -> Mapping[str, int]:
        """Stages in which at least one question is."""
        return {stage: count for stage, count in self._by_stage.items() if count}

    @contextmanager
    def admitted(self, count: int = 1) -> Iterator[None]:
        """Around a call that answers so many questions at a time. Raises `Overloaded`."""
        if self._num_admitted + count > self._max_running:
            raise Overloaded(
                f"{self._num_admitted} questions are being answered; at most {self._max_running} "
                "are at a time",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._admit(count)
        try:
            yield
        finally:
            self._admit(-count)

    @contextmanager
    def question(self) -> Iterator[None]:
        """Around the answering of one question."""
        self._change(1)
        try:
            yield
        finally:
            self._num_done += 1
            self._change(-1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around one of its stages."""
        self._by_stage[name] += 1
        try:
            yield
        finally:
            self._by_stage[name] -= 1

    def _admit(self, difference: int) -> None:
        self._num_admitted += difference
        self._observe_usage(self._num_admitted / self._max_running)

    def _change(self, difference: int) -> None:
        self._num_running += difference
        self._observe(self._num_running)
