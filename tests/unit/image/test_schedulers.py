"""Plans against diffusers' schedulers, made from the same options, step by step."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.image.schedulers import (
    NoiseSchedule,
    StepColumns,
    StepPlan,
    advance,
    estimate_x0,
    make_plan,
)
from services.image.types import Sampling, SchedulerName

_CLASSES = {
    SchedulerName.DDIM: diffusers.DDIMScheduler,
    SchedulerName.EULER: diffusers.EulerDiscreteScheduler,
    SchedulerName.EULER_ANCESTRAL: diffusers.EulerAncestralDiscreteScheduler,
    SchedulerName.DPM_SOLVER_PP_2M: diffusers.DPMSolverMultistepScheduler,
}
_WITH_KARRAS = (SchedulerName.EULER, SchedulerName.DPM_SOLVER_PP_2M)
_SHAPE = (1, 4, 6, 6)


def _optional(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each option there or left out: then the default of the sampler's own class holds."""
    return st.fixed_dictionaries({}, optional=options)


_OPTIONS = _optional(
    prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
    timestep_spacing=st.sampled_from(["leading", "linspace", "trailing"]),
    steps_offset=st.integers(0, 2),
    beta_schedule=st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
    beta_start=st.floats(1e-5, 2e-3),
    beta_end=st.floats(5e-3, 2e-2),
    num_train_timesteps=st.sampled_from([100, 1000]),
    rescale_betas_zero_snr=st.booleans(),
    set_alpha_to_one=st.booleans(),
    final_sigmas_type=st.sampled_from(["zero", "sigma_min"]),
    solver_type=st.sampled_from(["midpoint", "heun", "bh2"]),
    lower_order_final=st.booleans(),
    euler_at_final=st.booleans(),
    lambda_min_clipped=st.sampled_from([float("-inf"), -5.1]),
    sigma_min=st.floats(0.03, 0.1),
    sigma_max=st.floats(5.0, 14.0),
)


@st.composite
def _samplings(draw: st.DrawFn) -> Sampling:
    scheduler = draw(st.sampled_from(SchedulerName))
    return Sampling(
        num_steps=draw(st.integers(1, 40)),
        scheduler=scheduler,
        guidance_scale=1.0,
        eta=draw(st.sampled_from([0.0, 0.3, 1.0])) if scheduler is SchedulerName.DDIM else 0.0,
        karras_sigmas=scheduler in _WITH_KARRAS and draw(st.booleans()),
    )


def _model(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Stands for a UNet: bounded, and depends on every latent and on the timestep."""
    mixed = x.flip(-1) + 0.5 * x.roll(1, 1)
    return torch.sin(mixed + timestep.float() / 100)


def _by_diffusers(
    config: dict[str, Any], sampling: Sampling, strength: float | None
) -> list[torch.Tensor]:
    """The latents before the first and after every step."""
    options = {"use_karras_sigmas": sampling.karras_sigmas}
    scheduler_class = _CLASSES[sampling.scheduler]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler = scheduler_class.from_config(config | options)
        scheduler.set_timesteps(sampling.num_steps)
    assume(scheduler.timesteps[-1] >= 0)  # or, of "trailing" ones, it is one too many
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(_SHAPE, generator=generator)
    first = 0
    if strength is not None:  # as the image-to-image pipelines
        first = sampling.num_steps - min(int(sampling.num_steps * strength), sampling.num_steps)
    timesteps = scheduler.timesteps[first:]
    assume(len(timesteps) > 0)
    if hasattr(scheduler, "set_begin_index"):  # or of two equal timesteps the first is skipped
        scheduler.set_begin_index(first)
    if strength is None:
        x = noise * scheduler.init_noise_sigma
    else:
        x = scheduler.add_noise(_source(), noise, timesteps[:1])
    extra = {"eta": sampling.eta} if sampling.scheduler is SchedulerName.DDIM else {}
    if sampling.scheduler is not SchedulerName.DPM_SOLVER_PP_2M:
        extra["generator"] = generator
    latents = [x]
    for timestep in timesteps:
        output = _model(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, **extra).prev_sample
        latents.append(x)
    return latents


def _by_plan(plan: StepPlan, strength: float | None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(_SHAPE, generator=generator)
    if strength is None:
        x = plan.initial_noise_scale * noise
    else:
        x = plan.start.source * _source() + plan.start.noise * noise
    latents, previous_x0 = [x], torch.zeros(_SHAPE)
    for row in plan.table:
        columns = StepColumns(*row)
        output = _model(columns.input_scale * x, columns.timestep)
        x0 = estimate_x0(columns, x, output)
        x = advance(columns, x, output, x0, previous_x0)
        if plan.draws_noise:
            x = x + columns.from_noise * torch.randn(_SHAPE, generator=generator)
        previous_x0 = x0
        latents.append(x)
    return latents


def _source() -> torch.Tensor:
    return torch.linspace(-1.5, 1.5, 144).view(_SHAPE)


@settings(max_examples=100, deadline=None)
@given(options=_OPTIONS, sampling=_samplings(), strength=st.none() | st.floats(0.05, 1.0))
def test_plan_equals_diffusers_scheduler(
    options: dict[str, Any], sampling: Sampling, strength: float | None
) -> None:
    assume(strength is None or int(sampling.num_steps * strength) >= 1)
    config = {
        "_class_name": _CLASSES[sampling.scheduler].__name__,
        "clip_sample": False,  # as Stable Diffusion's pipelines set it
        **options,
    }
    schedule = NoiseSchedule.from_config(config)
    try:
        plan = make_plan(schedule, sampling, strength)
    except ValueError:
        _assert_impossible(config, sampling, strength)
        return
    expected, got = _by_diffusers(config, sampling, strength), _by_plan(plan, strength)
    assert len(got) == len(expected)
    for i, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        if not theirs.isfinite().all():  # of a step between equal sigmas it divides zero by zero
            assert ours.isfinite().all()
            return
        # Float32 errors of each step against latents as large as the largest so far.
        scale = max(1.0, float(max(each.abs().max() for each in expected[: i + 1])))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("scheduler", SchedulerName)
def test_plan_has_the_steps_asked_for_each_below_the_one_before(
    scheduler: SchedulerName, spacing: str
) -> None:
    """Every number of them: with "trailing" diffusers makes one too many of some."""
    schedule = NoiseSchedule.from_config({"timestep_spacing": spacing, "steps_offset": 1})
    for num_steps in range(1, 151):
        timesteps = make_plan(schedule, Sampling(num_steps, scheduler, 1.0), None).table[:, 0]
        assert len(timesteps) == num_steps
        assert timesteps[-1] >= 0
        assert (timesteps.diff() < 0).all()


def _assert_impossible(config: dict[str, Any], sampling: Sampling, strength: float | None) -> None:
    """diffusers fails as well, or goes on with numbers that are none."""
    try:
        latents = _by_diffusers(config, sampling, strength)
    except (IndexError, ValueError, RuntimeError):
        return
    assert not latents[-1].isfinite().all()


@pytest.mark.parametrize(
    ("options", "sampling", "strength", "told"),
    [
        ({}, Sampling(0, SchedulerName.DDIM, 1.0), None, "num_steps: expected 1 to 1000, got 0"),
        ({}, Sampling(1001, SchedulerName.EULER, 1.0), None, "num_steps: expected 1 to 1000"),
        ({}, Sampling(1000, SchedulerName.DPM_SOLVER_PP_2M, 1.0), None, "num_steps"),
        ({"steps_offset": 1}, Sampling(1000, SchedulerName.DDIM, 1.0), None, "num_steps"),
        ({}, Sampling(10, SchedulerName.EULER, 1.0), 0.05, "strength: 0.05 of 10 steps"),
    ],
)
def test_plan_that_cannot_be_made_is_refused_by_name(
    options: dict[str, Any], sampling: Sampling, strength: float | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        make_plan(NoiseSchedule.from_config(options), sampling, strength)


def test_ancestral_with_karras_levels_steps_between_the_levels_of_euler() -> None:
    """diffusers has no Karras levels for it."""
    schedule = NoiseSchedule.from_config({})
    plans = {
        name: make_plan(schedule, Sampling(12, name, 1.0, karras_sigmas=True), None)
        for name in (SchedulerName.EULER, SchedulerName.EULER_ANCESTRAL)
    }
    euler, ancestral = plans[SchedulerName.EULER], plans[SchedulerName.EULER_ANCESTRAL]
    assert torch.equal(euler.keep, ancestral.keep)
    levels = [euler.start.noise, *euler.keep[:, 1].tolist()]
    for row, now, after in zip(ancestral.table, levels, levels[1:], strict=False):
        columns = StepColumns(*row.tolist())
        down = columns.from_x * now
        assert down**2 + columns.from_noise**2 == pytest.approx(after**2, rel=1e-4)


def test_options_of_other_samplers_and_of_the_library_mean_nothing() -> None:
    schedule = NoiseSchedule.from_config(
        {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "skip_prk_steps": True}
    )
    assert schedule.scheduler_class == "PNDMScheduler"
    assert schedule.num_timesteps == 1000
