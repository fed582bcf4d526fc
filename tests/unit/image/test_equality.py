"""The model and the samplers by a plain loop for one picture: equal to diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from services.image.loop.beginning import begin
from services.image.loop.guidance import guide, needs_unconditional
from services.image.model.diffusion_model import DiffusionModel
from services.image.schedulers import StepColumns, advance, estimate_x0, make_plan
from services.image.types import PictureRequest, Pixels
from tests.unit.image.equality_cases import (
    CASES,
    MAX_DIFFERENCE,
    DiffusersReference,
    EqualityCase,
    FolderKind,
)

Pair = tuple[DiffusionModel, DiffusersReference]
Pairs = Callable[[FolderKind], Pair]


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Our model and diffusers' pipelines over one folder of a kind."""
    made: dict[FolderKind, Pair] = {}

    def pair(kind: FolderKind) -> Pair:
        if kind not in made:
            folder = kind.make(tmp_path_factory.mktemp("diffusion"))
            made[kind] = DiffusionModel.load(folder), DiffusersReference(folder)
        return made[kind]

    return pair


@torch.inference_mode()
def picture_by_loop(model: DiffusionModel, request: PictureRequest) -> Pixels:
    """One request, written out."""
    sampling = request.sampling
    generator = torch.Generator().manual_seed(request.seed)
    strength = None if request.source is None else request.source.strength
    plan = make_plan(model.schedule, sampling, strength)
    beginning = begin(model, request, plan, generator)
    guided = needs_unconditional(sampling.guidance_scale)
    texts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
    context = model.encode_prompts(texts)
    x, previous_x0 = beginning.latents[None], torch.zeros_like(beginning.latents[None])
    for step in range(plan.num_steps):
        columns = StepColumns(*plan.table[step])
        seen = columns.input_scale * x
        if beginning.model_channels is not None:
            seen = torch.cat([seen, beginning.model_channels[None]], 1)
        rows = len(texts)
        output = model.predict(
            seen.expand(rows, -1, -1, -1), columns.timestep.expand(rows), context
        )
        if guided:
            scale, rescale = (
                torch.full((1, 1, 1, 1), number)
                for number in (sampling.guidance_scale, sampling.guidance_rescale)
            )
            output = guide(output[:1], output[1:], scale, rescale)
        x0 = estimate_x0(columns, x, output)
        x = advance(columns, x, output, x0, previous_x0)
        if plan.draws_noise:
            x = x + columns.from_noise * torch.randn(x.shape, generator=generator)
        previous_x0 = x0
        if beginning.kept is not None:
            kept, to = beginning.kept, plan.keep[step]
            x = kept.mask * x + (1 - kept.mask) * (to[0] * kept.source + to[1] * kept.noise)
    return model.decode(x[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_picture_equals_diffusers(case: EqualityCase, pair_of: Pairs) -> None:
    model, reference = pair_of(case.folder)
    expected = reference.picture(case.request)
    assert expected.std() > 10  # not one colour
    _assert_equal(picture_by_loop(model, case.request), expected)


def test_picture_without_mask_of_inpainting_model_equals_diffusers_with_all_painted(
    pair_of: Pairs,
) -> None:
    case = next(case for case in CASES if case.name == "euler_ancestral-mask-9-1.0")
    model, reference = pair_of(case.folder)
    assert case.request.source is not None
    everything = replace(case.request.source, mask=np.full((32, 32), 255, np.uint8))
    expected = reference.picture(replace(case.request, source=everything))
    _assert_equal(picture_by_loop(model, replace(case.request, source=None)), expected)


def _assert_equal(got: Pixels, expected: Pixels) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= MAX_DIFFERENCE
