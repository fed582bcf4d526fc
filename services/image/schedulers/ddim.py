"""DDIM: Song et al., "Denoising Diffusion Implicit Models" (arXiv:2010.02502).

`eta` is how much of the noise is drawn anew at each step: 0 none, 1 as in DDPM.
"""

from __future__ import annotations

import numpy as np

from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.schedulers.plan import ImpossiblePlan, StepPlan, plan_of
from services.image.schedulers.timesteps import first_step, spaced
from services.image.types import Sampling

__all__ = ["plan_ddim"]


def plan_ddim(schedule: NoiseSchedule, sampling: Sampling, strength: float | None) -> StepPlan:
    """Equation 12 of the paper, its sigma by equation 16; `a` is the paper's alpha.

    Raises `ImpossiblePlan` for more steps than the schedule has room for.
    """
    options, num_steps = schedule.options, sampling.num_steps
    spacing = options.timestep_spacing or "leading"
    spread = spaced(spacing, num_steps, schedule.num_timesteps, options.steps_offset)
    timesteps = np.round(spread).astype(np.int64)
    if timesteps[0] >= schedule.num_timesteps:
        raise ImpossiblePlan("num_steps", f"{num_steps} go beyond the model's last timestep")
    signal = schedule.signal.astype(np.float64)
    a = signal[timesteps]
    before = timesteps - schedule.num_timesteps // num_steps
    final = 1.0 if options.set_alpha_to_one else signal[0]
    a_before = np.where(before >= 0, signal[before.clip(0)], final)

    variance = ((1 - a_before) / (1 - a) * (1 - a / a_before)).clip(0)
    noise = sampling.eta * np.sqrt(variance)
    direction = np.sqrt((1 - a_before - noise**2).clip(0))  # along the predicted noise
    columns = {
        "timestep": timesteps.astype(np.float64),
        "from_x0": np.sqrt(a_before),
        "from_noise": noise,
    }
    if options.prediction_type == "epsilon":
        with np.errstate(divide="ignore"):
            columns["x0_from_x"] = 1 / np.sqrt(a)
            columns["x0_from_output"] = -np.sqrt(1 - a) / np.sqrt(a)
        columns["from_output"] = direction
    else:
        columns["x0_from_x"] = np.sqrt(a)
        columns["x0_from_output"] = -np.sqrt(1 - a)
        columns["from_output"] = direction * np.sqrt(a)
        columns["from_x"] = direction * np.sqrt(1 - a)
    levels = np.append(a, 1.0)
    return plan_of(
        columns,
        keep_source=np.sqrt(levels),
        keep_noise=np.sqrt(1 - levels),
        initial_noise_scale=1.0,
        draws_noise=sampling.eta > 0,
        first=first_step(num_steps, strength),
    )
