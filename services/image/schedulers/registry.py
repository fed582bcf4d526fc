"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from services.image.schedulers.ddim import plan_ddim
from services.image.schedulers.dpm_solver_pp import plan_dpm_solver_pp_2m
from services.image.schedulers.euler import plan_euler, plan_euler_ancestral
from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.schedulers.plan import ImpossiblePlan, StepPlan
from services.image.types import Sampling, SchedulerName

__all__ = ["make_plan"]

Planner: TypeAlias = Callable[[NoiseSchedule, Sampling, float | None], StepPlan]

_PLANNERS: Mapping[SchedulerName, Planner] = MappingProxyType(
    {
        SchedulerName.DDIM: plan_ddim,
        SchedulerName.EULER: plan_euler,
        SchedulerName.EULER_ANCESTRAL: plan_euler_ancestral,
        SchedulerName.DPM_SOLVER_PP_2M: plan_dpm_solver_pp_2m,
    }
)


def make_plan(schedule: NoiseSchedule, sampling: Sampling, strength: float | None) -> StepPlan:
    """The numbers of every step; `strength` is of a source, None without one.

    Raises `ImpossiblePlan` for a number of steps that the schedule cannot be taken in.
    """
    if not 1 <= sampling.num_steps <= schedule.num_timesteps:
        raise ImpossiblePlan(
            "num_steps", f"expected 1 to {schedule.num_timesteps}, got {sampling.num_steps}"
        )
    if strength is not None and int(sampling.num_steps * strength) < 1:
        raise ImpossiblePlan(
            "strength", f"{strength:g} of {sampling.num_steps} steps leaves none to be done"
        )
    return _PLANNERS[sampling.scheduler](schedule, sampling, strength)
