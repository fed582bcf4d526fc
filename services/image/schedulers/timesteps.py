"""Which of the training timesteps a sampler visits.

Table 2 of Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed"
(arXiv:2305.08891). Knows no formula of a sampler.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "first_step", "spaced"]

Floats: TypeAlias = npt.NDArray[np.float64]
Spacing: TypeAlias = Literal["leading", "linspace", "trailing"]


def spaced(
    spacing: Spacing, num_steps: int, num_timesteps: int, offset: int, *, top: int | None = None
) -> Floats:
    """`num_steps` of `num_timesteps`, falling, float64; those of "linspace" are not rounded.

    `top`: only timesteps below it are visited, and one more is laid out at the end and left away,
    as DPM-Solver++ has it.
    """
    end = num_timesteps if top is None else top
    if spacing == "trailing":
        falling = np.arange(end, 0, -num_timesteps / num_steps, dtype=np.float64)
        # Some strides, rounded, leave room for one more, which would be at timestep -1.
        falling = falling[: -(-end * num_steps // num_timesteps)]
        return np.round(falling) - 1
    num_left_away = 0 if top is None else 1
    num_laid_out = num_steps + num_left_away
    rising: Floats
    if spacing == "linspace":
        rising = np.linspace(0.0, end - 1.0, num_laid_out, dtype=np.float64)
    else:
        rising = np.arange(num_laid_out, dtype=np.float64) * (end // num_laid_out) + offset
    return rising[num_left_away:][::-1].copy()


def first_step(num_steps: int, strength: float | None) -> int:
    """How many steps a source makes unnecessary: none of them at a strength of 1 (or None)."""
    if strength is None:
        return 0
    return num_steps - min(int(num_steps * strength), num_steps)
