"""DPM-Solver++, multistep of second order ("2M"): Lu et al. (arXiv:2211.01095), algorithm 2.

With the paper's alpha, sigma and lambda = log(alpha / sigma); `h` is how far lambda goes in a step.
The first step is of first order, and so is the last where few steps or no noise at the end call
for it.
"""

from __future__ import annotations

import numpy as np

from services.image.schedulers.noise_schedule import NoiseSchedule, ScheduleOptions
from services.image.schedulers.plan import StepPlan, plan_of
from services.image.schedulers.sigmas import at_timesteps, karras, last_sigma, timesteps_of
from services.image.schedulers.timesteps import Floats, first_step, spaced
from services.image.types import Sampling

__all__ = ["plan_dpm_solver_pp_2m"]

_FEW_STEPS = 15  # below this the last step is of first order


def plan_dpm_solver_pp_2m(
    schedule: NoiseSchedule, sampling: Sampling, strength: float | None
) -> StepPlan:
    """Raises `ImpossiblePlan` for steps so many that two are on one noise level."""
    timesteps, ratios = _levels(schedule, sampling)
    first = first_step(sampling.num_steps, strength)
    alpha = 1 / np.sqrt(ratios**2 + 1)
    sigma = ratios * alpha
    now, after = slice(None, -1), slice(1, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.diff(-np.log(ratios))
        towards_x0 = -alpha[after] * np.expm1(-h)
        slope = _slope(schedule.options, h, alpha[after])
        # (x0 - previous x0) / r, where r is the step before over this one
        of_difference = np.append(0.0, slope[1:] * h[1:] / h[:-1])
    of_difference[first] = 0.0
    if _ends_in_first_order(schedule.options, len(timesteps)):
        of_difference[-1] = 0.0
    columns = {
        "timestep": timesteps,
        "from_x": sigma[after] / sigma[now],
        "from_x0": towards_x0 + of_difference,
        "from_previous_x0": -of_difference,
    }
    if schedule.options.prediction_type == "epsilon":
        columns["x0_from_x"] = 1 / alpha[now]
        columns["x0_from_output"] = -ratios[now]
    else:
        columns["x0_from_x"] = alpha[now]
        columns["x0_from_output"] = -sigma[now]
    return plan_of(
        columns,
        keep_source=np.append(alpha[now], 1.0),
        keep_noise=np.append(sigma[now], 0.0),
        initial_noise_scale=1.0,
        draws_noise=False,
        first=first,
    )


def _slope(options: ScheduleOptions, h: Floats, alpha: Floats) -> Floats:
    """What the derivative of x0 counts for: by the rule "midpoint" half of what x0 does."""
    if options.solver_type == "heun":
        return alpha * np.where(h > 0, np.expm1(-h) / h + 1.0, 0.0)
    return -0.5 * alpha * np.expm1(-h)


def _ends_in_first_order(options: ScheduleOptions, num_steps: int) -> bool:
    few = options.lower_order_final and num_steps < _FEW_STEPS
    return few or options.euler_at_final or options.final_sigmas_type == "zero"


def _levels(schedule: NoiseSchedule, sampling: Sampling) -> tuple[Floats, Floats]:
    """Timesteps `[steps]` and sigma over alpha `[steps + 1]`, in float32's numbers."""
    options = schedule.options
    if sampling.karras_sigmas:
        highest, lowest = schedule.sigmas[-1], schedule.sigmas[0]
        ratios = karras(schedule, highest, lowest, sampling.num_steps)
        timesteps = timesteps_of(schedule, ratios)
        if options.beta_schedule != "squaredcos_cap_v2":
            timesteps = np.round(timesteps)
    else:
        spacing = options.timestep_spacing or "linspace"
        timesteps = np.round(
            spaced(
                spacing,
                sampling.num_steps,
                schedule.num_timesteps,
                options.steps_offset,
                top=_first_timestep_too_noisy(schedule),
            )
        )
        ratios = at_timesteps(schedule, timesteps)
    levels = np.append(ratios, last_sigma(schedule)).astype(np.float32).astype(np.float64)
    return np.trunc(timesteps), levels


def _first_timestep_too_noisy(schedule: NoiseSchedule) -> int:
    """Those whose lambda is below `lambda_min_clipped` are left out."""
    with np.errstate(divide="ignore"):
        lambdas = -np.log(schedule.sigmas)  # falling
    return int((lambdas >= schedule.options.lambda_min_clipped).sum())
