"""Samplers as tables of numbers: from a noise schedule and a request to a plan of its steps."""

from services.image.schedulers.noise_schedule import NoiseSchedule
from services.image.schedulers.plan import (
    ImpossiblePlan,
    StepColumns,
    StepPlan,
    advance,
    estimate_x0,
)
from services.image.schedulers.registry import make_plan

__all__ = [
    "ImpossiblePlan",
    "NoiseSchedule",
    "StepColumns",
    "StepPlan",
    "advance",
    "estimate_x0",
    "make_plan",
]
