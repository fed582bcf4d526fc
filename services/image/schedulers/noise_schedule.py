"""The noise a model was trained with, as a folder's `scheduler_config.json` tells it.

Options that the samplers do not implement are refused when the folder is read, by name. An option
that is left out has the default of whichever sampler reads it, as in diffusers. The tables are
computed in float32 as diffusers does, so that both take the same timesteps and noise levels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["NoiseSchedule", "ScheduleOptions"]

Floats32: TypeAlias = npt.NDArray[np.float32]

# What a cumulative product of zero (no signal at all) becomes where its inverse is needed.
_LEAST_SIGNAL = 2.0**-24
_MAX_BETA = 0.999  # of the cosine schedule

# What Stable Diffusion's pipelines set, whatever the file says: latents are not pixels, which alone
# end at one, and the first timestep is skipped.
_SET_BY_PIPELINES: Mapping[str, Any] = MappingProxyType({"clip_sample": False, "steps_offset": 1})

# Options of other samplers, without a meaning for ours.
_INERT = frozenset(
    {
        "clip_sample_range",
        "disable_corrector",
        "dynamic_thresholding_ratio",
        "flow_shift",
        "original_inference_steps",
        "predict_x0",
        "sample_max_value",
        "skip_prk_steps",
        "solver_p",
        "timestep_scaling",
        "time_shift_type",
        "trained_timesteps",
    }
)


class ScheduleOptions(BaseModel):
    """`scheduler_config.json`, as far as it means something to a sampler here.

    A field of a single value is an option whose other values are not implemented.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_train_timesteps: int = Field(default=1000, ge=1, le=1_000_000)
    beta_start: float = Field(default=0.0001, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    steps_offset: int = Field(default=0, ge=0)
    # DDIM
    clip_sample: Literal[False] = False
    set_alpha_to_one: bool = True
    thresholding: Literal[False] = False
    # Euler and DPM-Solver++
    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete"] = "discrete"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    use_karras_sigmas: bool | None = None
    use_exponential_sigmas: Literal[False] | None = None
    use_beta_sigmas: Literal[False] | None = None
    use_lu_lambdas: Literal[False] | None = None
    use_flow_sigmas: Literal[False] | None = None
    use_dynamic_shifting: Literal[False] | None = None
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)
    # DPM-Solver++
    solver_order: Literal[2] = 2
    algorithm_type: Literal["dpmsolver++", "deis"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun", "logrho", "bh1", "bh2"] = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    lambda_min_clipped: float = -math.inf
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """`N` training timesteps. `signal[t]` is the cumulative product of alphas at timestep `t`."""

    options: ScheduleOptions
    scheduler_class: str  # whose options the folder has, as diffusers calls it
    signal: Floats32  # [N], from almost 1 down to almost (or, rescaled, exactly) 0
    sigmas: Floats32  # [N], noise over signal: sqrt((1 - signal) / signal), finite

    @property
    def num_timesteps(self) -> int:
        return len(self.signal)

    @classmethod
    def from_file(cls, path: Path) -> NoiseSchedule:
        """Of a pipeline's folder. Raises `ValueError` naming the file and the option."""
        try:
            config = json.loads(path.read_text())
            if not isinstance(config, dict):
                raise ValueError("expected a JSON object")
            return cls.from_config(config | dict(_SET_BY_PIPELINES))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Raises `ValueError` naming the option that cannot be served."""
        scheduler_class = str(config.get("_class_name", ""))
        if "Flow" in scheduler_class:
            raise ValueError(
                f"_class_name: {scheduler_class} is of flow matching, not of diffusion"
            )
        given = {
            name: value
            for name, value in config.items()
            if not name.startswith("_") and name not in _INERT
        }
        try:
            options = ScheduleOptions(**given)
        except ValidationError as error:
            raise ValueError(_told(error)) from error
        betas = _betas(options)
        if len(betas) != options.num_train_timesteps:
            raise ValueError(
                f"trained_betas: expected {options.num_train_timesteps} as num_train_timesteps, "
                f"got {len(betas)}"
            )
        if not ((betas > 0) & (betas <= 1)).all():
            raise ValueError("trained_betas: expected numbers above 0, up to 1")
        if options.rescale_betas_zero_snr:
            betas = _without_signal_at_the_end(betas)
        signal = torch.cumprod(1.0 - betas, dim=0)
        some_signal = signal.clone()
        if options.rescale_betas_zero_snr:
            some_signal[-1] = _LEAST_SIGNAL
        sigmas = ((1 - some_signal) / some_signal) ** 0.5
        return cls(options, scheduler_class, signal.numpy(), sigmas.numpy())


def _betas(options: ScheduleOptions) -> torch.Tensor:
    """The noise added at each training timestep, float32 `[N]`."""
    start, end, num = options.beta_start, options.beta_end, options.num_train_timesteps
    if options.trained_betas is not None:
        return torch.tensor(options.trained_betas, dtype=torch.float32)
    if options.beta_schedule == "linear":
        return torch.linspace(start, end, num, dtype=torch.float32)
    if options.beta_schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, num, dtype=torch.float32) ** 2
    signal = [_cosine_signal(i / num) for i in range(num + 1)]
    betas = [min(1 - after / before, _MAX_BETA) for before, after in pairwise(signal)]
    return torch.tensor(betas, dtype=torch.float32)


def _cosine_signal(time: float) -> float:
    """Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", equation 17."""
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _without_signal_at_the_end(betas: torch.Tensor) -> torch.Tensor:
    """The same schedule, shifted and stretched until the last timestep has no signal left.

    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    """
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root -= last
    root *= first / (first - last)
    signal = root**2
    alphas = torch.cat([signal[:1], signal[1:] / signal[:-1]])
    return 1 - alphas


def _told(error: ValidationError) -> str:
    """Every option that is wrong, on one line."""
    reasons = []
    for detail in error.errors():
        name = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            reasons.append(f"{name}: an unknown option")
        else:
            reasons.append(f"{name}: {detail['msg']}, got {detail['input']!r}")
    return "; ".join(reasons)
