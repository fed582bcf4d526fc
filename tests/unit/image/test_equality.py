"""Pictures by the engine, as callers get them: equal to those of diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from services.image.model.diffusion_model import DiffusionModel
from services.image.types import PictureRequest, Pixels
from tests.unit.image.by_engine import latents_alone
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


def picture(model: DiffusionModel, request: PictureRequest) -> Pixels:
    return model.decode(latents_alone(model, request))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_picture_equals_diffusers(case: EqualityCase, pair_of: Pairs) -> None:
    model, reference = pair_of(case.folder)
    expected = reference.picture(case.request)
    assert expected.std() > 10  # not one colour
    _assert_equal(picture(model, case.request), expected)


def test_picture_without_mask_of_inpainting_model_equals_diffusers_with_all_painted(
    pair_of: Pairs,
) -> None:
    case = next(case for case in CASES if case.name == "euler_ancestral-mask-9-1.0")
    model, reference = pair_of(case.folder)
    assert case.request.source is not None
    everything = replace(case.request.source, mask=np.full((32, 32), 255, np.uint8))
    expected = reference.picture(replace(case.request, source=everything))
    _assert_equal(picture(model, replace(case.request, source=None)), expected)


def _assert_equal(got: Pixels, expected: Pixels) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= MAX_DIFFERENCE
