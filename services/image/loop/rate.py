"""How fast steps go, to tell those who are refused when to come back."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StepRate"]

_WEIGHT = 0.1  # of the newest call in the moving average


class StepRate:
    """The seconds of lately's steps. A step of one picture counts one."""

    def __init__(self) -> None:
        self.num_steps = 0  # since the start
        self._step_s = 0.0  # of one picture, in the company it had

    def add(self, num_pictures: int, call_s: float) -> None:
        """A call of the model."""
        self.num_steps += num_pictures
        step_s = call_s / num_pictures
        weight = _WEIGHT if self._step_s else 1.0
        self._step_s += weight * (step_s - self._step_s)

    def retry_after_s(self, num_steps: Sequence[int]) -> float:
        """When a place may be free, if pictures of so many steps each are under way."""
        mean_steps = sum(num_steps) / max(1, len(num_steps))
        return max(1.0, mean_steps * self._step_s)
