"""The stages of one question as they run: each within its share of the time, each timed.

    with timeline.stage("embed") as stage:
        vectors = await stage.run(services.embed(texts, stage.caller))
        stage.detail = "1 text"

Time that is up ends the question with `DeadlineExceeded`, which names the stage and says what all
stages took. Knows nothing of what the stages do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from services.rag.deadlines import Budget
from services.rag.running import Running
from services.rag.types import StageTime
from services.runtime.errors import DeadlineExceeded
from services.runtime.peer import Caller

__all__ = ["StageRun", "Timeline"]

T = TypeVar("T")
Observe = Callable[[str, float], None]


@dataclass(slots=True)
class StageRun:
    """A stage under way. `detail` says in numbers what it did."""

    name: str
    caller: Caller  # for the calls it makes: with the stage's own deadline
    detail: str = ""

    async def run(self, work: Awaitable[T]) -> T:
        """Awaits `work`, cancelling it when the stage's time is up: then `DeadlineExceeded`."""
        limit = asyncio.timeout(self.caller.left_s())
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded("its time was up") from error


class Timeline:
    """The stages of one question. `observe` is told name and seconds of each that ended."""

    def __init__(self, caller: Caller, budget: Budget, running: Running, observe: Observe) -> None:
        self._caller = caller
        self._budget = budget
        self._running = running
        self._observe = observe
        self._stages: list[StageTime] = []

    @property
    def stages(self) -> tuple[StageTime, ...]:
        """Those that ended, in order, each followed by the stages that ran inside it."""
        return tuple(self._stages)

    def duration_ns(self, name: str) -> int:
        """Nanoseconds spent in stages of that name."""
        return sum(stage.duration_ns for stage in self._stages if stage.stage == name)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageRun]:
        """Around the work of one stage."""
        begin_s = time.monotonic()
        left_s = self._budget.cutoff_s(name) - begin_s
        run = StageRun(name, self._caller.within_s(left_s))
        try:
            with self._running.stage(name):
                yield run
        except DeadlineExceeded as error:
            self._end(run, begin_s)
            raise DeadlineExceeded(self._explanation(name), stage=name) from error
        except BaseException:
            self._end(run, begin_s)
            raise
        self._end(run, begin_s)

    def add_inner(self, outer: str, stages: Iterable[StageTime]) -> None:
        """Puts another service's own stages below the last stage named `outer`."""
        position = max(n for n, stage in enumerate(self._stages) if stage.stage == outer)
        start_ns = self._stages[position].start_ns
        self._stages[position + 1 : position + 1] = [
            StageTime(
                f"{outer}.{stage.stage}",
                start_ns + stage.start_ns,
                stage.duration_ns,
                stage.detail,
            )
            for stage in stages
        ]

    def _end(self, run: StageRun, begin_s: float) -> None:
        duration_s = time.monotonic() - begin_s
        start_ns = max(0, int((begin_s - self._budget.start_s) * 1e9))
        self._stages.append(StageTime(run.name, start_ns, int(duration_s * 1e9), run.detail))
        self._observe(run.name, duration_s)

    def _explanation(self, name: str) -> str:
        total_ms = (self._budget.end_s - self._budget.start_s) * 1e3
        spent = ", ".join(f"{s.stage} {s.duration_ns / 1e6:.0f} ms" for s in self._stages)
        return f"the time was up in stage {name!r}; of {total_ms:.0f} ms: {spent}"
