"""Noise levels between which Euler's method and DPM-Solver++ step: sigma, the noise per signal.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models"
(arXiv:2206.00364), whose notation this is. Knows no formula of a sampler.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.schedulers.timesteps import Floats

__all__ = ["at_timesteps", "karras", "last_sigma", "timesteps_of"]

Floats32: TypeAlias = npt.NDArray[np.float32]

_RHO = 7.0


def at_timesteps(schedule: NoiseSchedule, timesteps: npt.NDArray[np.floating]) -> Floats:
    """The noise levels at timesteps, between two of them by a straight line."""
    known = np.arange(schedule.num_timesteps)
    levels: Floats = np.interp(timesteps, known, schedule.sigmas).astype(np.float64)
    return levels


def karras(schedule: NoiseSchedule, highest: float, lowest: float, num_steps: int) -> Floats:
    """Levels that grow finer towards the end, from `highest` to `lowest`: equation 5.

    The folder's own `sigma_min` and `sigma_max` go before the two.
    """
    options = schedule.options
    low = (options.sigma_min or float(lowest)) ** (1 / _RHO)
    high = (options.sigma_max or float(highest)) ** (1 / _RHO)
    levels: Floats = (high + np.linspace(0, 1, num_steps) * (low - high)) ** _RHO
    return levels


def timesteps_of(schedule: NoiseSchedule, sigmas: Floats) -> Floats:
    """Where on the schedule, between which two timesteps, these levels are: linear in log sigma."""
    known = np.log(schedule.sigmas)
    wanted = np.log(np.maximum(sigmas, 1e-10))
    below = np.searchsorted(known, wanted, side="right") - 1
    below = below.clip(0, len(known) - 2)
    low, high = known[below], known[below + 1]
    weight = ((low - wanted) / (low - high)).clip(0, 1)
    timesteps: Floats = (1 - weight) * below + weight * (below + 1)
    return timesteps


def last_sigma(schedule: NoiseSchedule) -> float:
    """What is left of the noise after the last step."""
    return 0.0 if schedule.options.final_sigmas_type == "zero" else float(schedule.sigmas[0])
