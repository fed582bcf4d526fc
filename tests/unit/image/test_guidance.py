"""Guidance against diffusers' formula, rows of different strengths at once."""

from __future__ import annotations

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from services.image.loop.guidance import guide, needs_unconditional


def _rows(seed: int, num: int = 3) -> torch.Tensor:
    return torch.randn(num, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def _column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers).view(-1, 1, 1, 1)


def test_rows_are_guided_each_with_its_own_numbers() -> None:
    conditional, unconditional = _rows(0), _rows(1)
    scales, rescales = (2.0, 7.5, 5.0), (0.0, 0.7, 1.0)
    got = guide(conditional, unconditional, _column(*scales), _column(*rescales))
    for i, (scale, rescale) in enumerate(zip(scales, rescales, strict=True)):
        one, other = conditional[i : i + 1], unconditional[i : i + 1]
        expected = other + scale * (one - other)
        if rescale:
            expected = rescale_noise_cfg(expected, one, guidance_rescale=rescale)
        torch.testing.assert_close(got[i : i + 1], expected, rtol=0, atol=1e-5)


def test_scale_of_one_is_the_conditional_output() -> None:
    conditional = _rows(0)
    got = guide(conditional, _rows(1), _column(1.0, 1.0, 1.0), _column(0.0, 0.0, 0.0))
    torch.testing.assert_close(got, conditional, rtol=0, atol=1e-6)


def test_constant_output_stays_finite_without_rescale() -> None:
    flat = torch.zeros(1, 4, 8, 8)
    assert torch.equal(guide(flat, flat, _column(5.0), _column(0.0)), flat)


def test_only_scales_above_one_need_the_unconditional_output() -> None:
    assert [needs_unconditional(scale) for scale in (0.0, 1.0, 1.001, 7.5)] == [
        False,
        False,
        True,
        True,
    ]
