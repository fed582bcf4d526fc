"""Euler's method: Karras et al. (arXiv:2206.00364), algorithm 2 without its extra noise.

And Euler's method with noise of its own at every step ("ancestral"), as k-diffusion has it: a step
goes below the next noise level and noise brings it back up. Latents are the picture plus
`sigma * noise`; the model, which was trained on latents of variance one, sees them scaled.
"""

from __future__ import annotations

import numpy as np

from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.schedulers.plan import StepPlan, plan_of
from services.image.schedulers.sigmas import at_timesteps, karras, last_sigma, timesteps_of
from services.image.schedulers.timesteps import Floats, first_step, spaced
from services.image.types import Sampling

__all__ = ["plan_euler", "plan_euler_ancestral"]


def plan_euler(schedule: NoiseSchedule, sampling: Sampling, strength: float | None) -> StepPlan:
    """`x' = x + (sigma' - sigma) (x - x0) / sigma`."""
    timesteps, sigmas = _levels(schedule, sampling, last_sigma(schedule))
    down = sigmas[1:]
    return _plan(schedule, sampling, strength, timesteps, sigmas, down, np.zeros_like(down))


def plan_euler_ancestral(
    schedule: NoiseSchedule, sampling: Sampling, strength: float | None
) -> StepPlan:
    """The same down to `sigma_down`, then noise of `sigma_up`: their squares add to `sigma'^2`."""
    timesteps, sigmas = _levels(schedule, sampling, 0.0)
    now, after = sigmas[:-1] ** 2, sigmas[1:] ** 2
    up = np.sqrt((after * (now - after) / now).clip(0))
    down = np.sqrt((after - up**2).clip(0))
    return _plan(schedule, sampling, strength, timesteps, sigmas, down, up)


def _levels(schedule: NoiseSchedule, sampling: Sampling, last: float) -> tuple[Floats, Floats]:
    """Timesteps `[steps]` and noise levels `[steps + 1]`, in float32's numbers."""
    options, num_steps = schedule.options, sampling.num_steps
    spacing = options.timestep_spacing or "linspace"
    spread = spaced(spacing, num_steps, schedule.num_timesteps, options.steps_offset)
    timesteps: Floats = spread.astype(np.float32).astype(np.float64)
    sigmas = at_timesteps(schedule, timesteps)
    if sampling.karras_sigmas:
        sigmas = karras(schedule, sigmas[0], sigmas[-1], num_steps)
        timesteps = timesteps_of(schedule, sigmas)
    return timesteps, np.append(sigmas, last).astype(np.float32).astype(np.float64)


def _plan(
    schedule: NoiseSchedule,
    sampling: Sampling,
    strength: float | None,
    timesteps: Floats,
    sigmas: Floats,
    down: Floats,
    up: Floats,
) -> StepPlan:
    now = sigmas[:-1]
    signal = 1 / np.sqrt(now**2 + 1)
    columns = {
        "timestep": timesteps,
        "input_scale": signal,
        "from_x": down / now,
        "from_x0": 1 - down / now,
        "from_noise": up,
    }
    if schedule.options.prediction_type == "epsilon":
        columns["x0_from_x"] = np.ones_like(now)
        columns["x0_from_output"] = -now
    else:
        columns["x0_from_x"] = signal**2
        columns["x0_from_output"] = -now * signal
    largest = float(sigmas.max())
    levels = np.append(now, 0.0)
    leading = schedule.options.timestep_spacing == "leading"
    return plan_of(
        columns,
        keep_source=np.ones_like(levels),
        keep_noise=levels,
        initial_noise_scale=np.sqrt(largest**2 + 1) if leading else largest,
        draws_noise=bool(up.any()),
        first=first_step(sampling.num_steps, strength),
    )
