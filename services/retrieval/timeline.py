"""Where a call's time goes, stage by stage, and which stage is at work when it is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from services.runtime.errors import DeadlineExceeded

__all__ = ["Stage", "Timeline"]


@dataclass(slots=True)
class Stage:
    """Nanoseconds since the call arrived. `detail` says in numbers what was done."""

    name: str
    start_ns: int
    duration_ns: int = 0
    detail: str = ""


class Timeline:
    """The stages of one call. Times are on `time.monotonic`."""

    def __init__(self, arrival_s: float, deadline_s: float | None) -> None:
        self.stages: list[Stage] = []
        self._arrival_s = arrival_s
        self._deadline_s = deadline_s

    @classmethod
    def now(cls, deadline_s: float | None) -> Timeline:
        """Of something that begins now."""
        return cls(time.monotonic(), deadline_s)

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, not negative; None where there is none."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def since_arrival_ns(self) -> int:
        """Nanoseconds since the call arrived."""
        return int((time.monotonic() - self._arrival_s) * 1e9)

    def spent_ns(self, *names: str) -> int:
        """In the stages of these names."""
        return sum(stage.duration_ns for stage in self.stages if stage.name in names)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Times what happens within."""
        stage = Stage(name, self.since_arrival_ns())
        self.stages.append(stage)
        try:
            yield stage
        finally:
            stage.duration_ns = self.since_arrival_ns() - stage.start_ns

    @asynccontextmanager
    async def within_deadline(self) -> AsyncIterator[None]:
        """Cancels what happens within when the deadline comes: `DeadlineExceeded` with the stage.

        Deadlines that others met on this call's behalf get the stage, too.
        """
        try:
            async with asyncio.timeout_at(self._loop_deadline_s()):
                yield
        except TimeoutError:
            raise DeadlineExceeded(
                "the time of the request was up", stage=self._last_stage()
            ) from None
        except DeadlineExceeded as error:
            error.stage = self._last_stage() or error.stage
            raise

    def _last_stage(self) -> str | None:
        return self.stages[-1].name if self.stages else None

    def _loop_deadline_s(self) -> float | None:
        if self._deadline_s is None:
            return None
        return asyncio.get_running_loop().time() + self._deadline_s - time.monotonic()
