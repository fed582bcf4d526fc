"""What a sampler does to one picture, worked out before the first step: a row of numbers per step.

Every sampler here is linear in what a step knows, so that a step of any mix of pictures is one
expression over tensors (`estimate_x0`, `advance`) and only the numbers differ. Knows neither the
model nor the request that asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "ImpossiblePlan",
    "StartScales",
    "StepColumns",
    "StepPlan",
    "advance",
    "estimate_x0",
    "plan_of",
]

Floats: TypeAlias = npt.NDArray[np.float64]


class ImpossiblePlan(ValueError):
    """The noise schedule cannot be taken as asked. `field`: "num_steps" or "strength"."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field
        self.what = what


class StepColumns(NamedTuple):
    """The numbers of a step, each a tensor that broadcasts against latents `[n, C, h, w]`.

    output = model(input_scale * x, timestep)
    x0 = x0_from_x * x + x0_from_output * output, clamped to +-x0_limit
    x' = from_x * x + from_output * output + from_x0 * x0
         + from_previous_x0 * (x0 of the step before) + from_noise * noise
    """

    timestep: torch.Tensor
    input_scale: torch.Tensor
    x0_from_x: torch.Tensor
    x0_from_output: torch.Tensor
    from_x: torch.Tensor
    from_output: torch.Tensor
    from_x0: torch.Tensor
    from_previous_x0: torch.Tensor
    from_noise: torch.Tensor


class StartScales(NamedTuple):
    """How a source is noised: `source * its latents + noise * noise`."""

    source: float
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """One picture's way from noise, `S` steps. Tensors are float32 on the CPU."""

    table: torch.Tensor  # [S, 9], columns in the order of `StepColumns`
    keep: torch.Tensor  # [S, 2], scales of source and noise where a source is kept, after a step
    start: StartScales  # where the picture begins from a source
    initial_noise_scale: float  # where it begins from noise
    draws_noise: bool  # whether every step, the last one too, draws noise

    @property
    def num_steps(self) -> int:
        return self.table.shape[0]


def estimate_x0(columns: StepColumns, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The picture without noise as the model's output has it, `[n, C, h, w]`."""
    return columns.x0_from_x * x + columns.x0_from_output * output


def advance(
    columns: StepColumns,
    x: torch.Tensor,
    output: torch.Tensor,
    x0: torch.Tensor,
    previous_x0: torch.Tensor,
) -> torch.Tensor:
    """The latents after the step, `[n, C, h, w]`, without the noise that some samplers add."""
    return (
        columns.from_x * x
        + columns.from_output * output
        + columns.from_x0 * x0
        + columns.from_previous_x0 * previous_x0
    )


def plan_of(
    columns: Mapping[str, Floats],
    *,
    keep_source: Floats,
    keep_noise: Floats,
    initial_noise_scale: float,
    draws_noise: bool,
    first: int,
) -> StepPlan:
    """Puts a sampler's numbers into a plan that begins at step `first` of them.

    `columns`: float64 `[all steps]` by name; those left out are 0, `input_scale` is 1.
    `keep_source`, `keep_noise`: `[all steps + 1]`, the scales at each step's noise level and after
    the last. Raises `ImpossiblePlan` where no step is left, or a number is not finite.
    """
    num_steps = len(keep_source) - 1
    if first >= num_steps:
        raise ImpossiblePlan("strength", f"of {num_steps} steps none is left")
    defaults = {"input_scale": 1.0}
    table = np.stack(
        [
            np.broadcast_to(columns.get(name, defaults.get(name, 0.0)), num_steps)
            for name in StepColumns._fields
        ],
        axis=1,
    )[first:]
    if not np.isfinite(table).all():
        raise ImpossiblePlan("num_steps", f"the noise schedule cannot be taken in {num_steps}")
    return StepPlan(
        table=torch.from_numpy(table.astype(np.float32)),
        keep=torch.from_numpy(np.stack([keep_source, keep_noise], 1)[first + 1 :].astype("f4")),
        start=StartScales(float(keep_source[first]), float(keep_noise[first])),
        initial_noise_scale=initial_noise_scale,
        draws_noise=draws_noise,
    )
