"""Each parameter's limits: what is refused names its field, what is allowed comes out as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.image.checks import (
    Parameters,
    PreviewWish,
    check_batch,
    check_negative_prompt,
    check_num_tokens,
    check_prompt,
    check_sampling,
    check_size,
    check_strength,
)
from services.image.config import ImageConfig
from services.image.types import PreviewKind, Sampling, SchedulerName
from services.runtime.errors import ContextTooLong, InvalidRequest
from tests.fakes.scripted_images import scripted_model

CONFIG = ImageConfig(model_name="m", model_path="m", ranking_application="clip")
NO_CLIP = ImageConfig(model_name="m", model_path="m")
MODEL = scripted_model()
NAN, INF = float("nan"), float("inf")
DDIM, EULER = SchedulerName.DDIM, SchedulerName.EULER


def field_of(caught: pytest.ExceptionInfo[InvalidRequest]) -> str | None:
    error = caught.value
    assert error.field is not None
    assert error.message.startswith(f"{error.field}: ")
    return error.field


def test_defaults_are_the_applications() -> None:
    assert check_sampling(Parameters(), CONFIG, MODEL) == Sampling(
        30, SchedulerName.DPM_SOLVER_PP_2M, 7.5, 0.0, 0.0, False
    )


def test_default_karras_levels_are_left_out_where_ddim_is_asked_for() -> None:
    model = replace(MODEL, default_karras_sigmas=True)
    assert check_sampling(Parameters(), CONFIG, model).karras_sigmas
    assert not check_sampling(Parameters(scheduler=DDIM), CONFIG, model).karras_sigmas
    assert not check_sampling(Parameters(karras_sigmas=False), CONFIG, model).karras_sigmas


def test_all_that_is_asked_for_comes_out() -> None:
    asked = Parameters(
        num_steps=7, guidance_scale=3.0, guidance_rescale=0.5, scheduler=DDIM, eta=0.25
    )
    assert check_sampling(asked, CONFIG, MODEL) == Sampling(7, DDIM, 3.0, 0.5, 0.25, False)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 151}, "num_steps"),
        ({"num_steps": 10_000}, "num_steps"),
        ({"guidance_scale": NAN}, "guidance_scale"),
        ({"guidance_scale": INF}, "guidance_scale"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_scale": 30.1}, "guidance_scale"),
        ({"guidance_rescale": NAN}, "guidance_rescale"),
        ({"guidance_rescale": -0.1}, "guidance_rescale"),
        ({"guidance_rescale": 1.1}, "guidance_rescale"),
        ({"guidance_rescale": 0.5, "guidance_scale": 1.0}, "guidance_rescale"),
        ({"eta": 0.5}, "eta"),
        ({"eta": 0.5, "scheduler": EULER}, "eta"),
        ({"eta": NAN, "scheduler": DDIM}, "eta"),
        ({"eta": 1.1, "scheduler": DDIM}, "eta"),
        ({"karras_sigmas": True, "scheduler": DDIM}, "karras_sigmas"),
    ],
)
def test_sampling_that_cannot_be_is_refused_by_field(
    parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(Parameters(**parameters), CONFIG, MODEL)
    assert field_of(caught) == f"parameters.{field}"


@pytest.mark.parametrize("scheduler", SchedulerName)
def test_recipe_as_it_is_told_may_be_asked_for_again(scheduler: SchedulerName) -> None:
    """A recipe has every field, also those of other schedulers at rest."""
    told = check_sampling(Parameters(scheduler=scheduler, guidance_scale=1.0), CONFIG, MODEL)
    again = Parameters(
        num_steps=told.num_steps,
        scheduler=told.scheduler,
        guidance_scale=told.guidance_scale,
        guidance_rescale=told.guidance_rescale,
        eta=told.eta,
        karras_sigmas=told.karras_sigmas,
    )
    assert check_sampling(again, CONFIG, MODEL) == told


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003"])
def test_blank_prompt_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_prompt(text, 100)
    assert field_of(caught) == "prompt"


def test_prompts_are_limited_in_bytes() -> None:
    check_prompt("é" * 50, 100)
    with pytest.raises(InvalidRequest) as caught:
        check_prompt("é" * 51, 100)
    assert field_of(caught) == "prompt"


def test_negative_prompt_needs_guidance() -> None:
    guided = check_sampling(Parameters(), CONFIG, MODEL)
    check_negative_prompt("blurred", guided, 100)
    check_negative_prompt("", replace(guided, guidance_scale=1.0), 100)
    with pytest.raises(InvalidRequest) as caught:
        check_negative_prompt("blurred", replace(guided, guidance_scale=1.0), 100)
    assert field_of(caught) == "parameters.negative_prompt"
    with pytest.raises(InvalidRequest) as caught:
        check_negative_prompt("b" * 101, guided, 100)
    assert field_of(caught) == "parameters.negative_prompt"


def test_prompt_over_the_models_context_is_context_too_long() -> None:
    check_num_tokens(77, MODEL, "prompt")
    with pytest.raises(ContextTooLong) as caught:
        check_num_tokens(78, MODEL, "prompt")
    assert field_of(caught) == "prompt"


@pytest.mark.parametrize("size", [(8, 8), (64, 72), (2048, 512), (1024, 1024)])
def test_sizes_within_the_limits_pass(size: tuple[int, int]) -> None:
    check_size(*size, CONFIG, MODEL)


@pytest.mark.parametrize(
    ("size", "field"),
    [
        ((0, 64), "width"),
        ((64, 0), "height"),
        ((60, 64), "width"),
        ((64, 63), "height"),
        ((2056, 8), "width"),
        ((8, 2056), "height"),
        ((1 << 31, 64), "width"),
        ((1032, 1024), "width"),
    ],
)
def test_sizes_beyond_the_limits_are_refused_by_field(size: tuple[int, int], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_size(*size, CONFIG, MODEL)
    assert field_of(caught) == f"parameters.{field}"


def test_seeds_count_up_and_are_drawn_anew_where_none_is_given() -> None:
    assert check_batch(Parameters(n=3, seed=5), CONFIG).seeds == (5, 6, 7)
    last = check_batch(Parameters(seed=(1 << 63) - 1), CONFIG)
    assert last.seeds == ((1 << 63) - 1,)
    drawn = {check_batch(Parameters(), CONFIG).seeds for _ in range(8)}
    assert len(drawn) > 1


def test_previews_only_where_they_are_wanted() -> None:
    assert check_batch(Parameters(), CONFIG).preview_every == 0
    wanted = Parameters(previews=PreviewWish(None, PreviewKind.LATENT))
    batch = check_batch(wanted, CONFIG)
    assert (batch.preview_every, batch.preview_kind) == (5, PreviewKind.LATENT)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"seed": 1 << 63}, "seed"),
        ({"seed": (1 << 63) - 1, "n": 2}, "seed"),
        ({"previews": PreviewWish(0, PreviewKind.DECODED)}, "previews.every_num_steps"),
        ({"top_n": 1}, "top_n"),
        ({"top_n": 0, "rank_by_similarity": True}, "top_n"),
        ({"top_n": 3, "n": 2, "rank_by_similarity": True}, "top_n"),
    ],
)
def test_batches_that_cannot_be_are_refused_by_field(
    parameters: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_batch(Parameters(**parameters), CONFIG)
    assert field_of(caught) == f"parameters.{field}"


def test_ranking_needs_an_application_to_ask() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_batch(Parameters(rank_by_similarity=True), NO_CLIP)
    assert field_of(caught) == "parameters.rank_by_similarity"


def test_ranked_calls_return_all_unless_told_otherwise() -> None:
    ranked = Parameters(n=4, rank_by_similarity=True)
    assert check_batch(ranked, CONFIG).top_n == 4
    assert check_batch(replace(ranked, top_n=2), CONFIG).top_n == 2
    assert check_batch(Parameters(n=4), CONFIG).top_n is None


def test_strength_of_all_shares_that_leave_a_step() -> None:
    assert check_strength(None, 30, CONFIG) == 0.8
    assert check_strength(1.0, 30, CONFIG) == 1.0
    assert check_strength(0.1, 10, CONFIG) == 0.1


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, NAN, INF, 0.03])
def test_strength_that_leaves_nothing_to_do_is_refused(strength: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_strength(strength, 30, CONFIG)
    assert field_of(caught) == "strength"
