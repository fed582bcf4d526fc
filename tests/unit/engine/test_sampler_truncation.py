"""The filters against Hugging Face's, and the draw against the distribution it should follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.engine.request import SamplingParams
from services.engine.sampler.randomness import stream_keys, uniforms
from services.engine.sampler.truncation import Filters, draw, kept_weights
from tests.unit.engine.sampler_cases import random_logits, reference_filter

# What float32 may decide differently: a token whose cumulative mass lies this close to the limit.
TOLERANCE = 1e-5
UNDERFLOW = 1e-37  # a probability that float32 may round to nothing


def filtered(logits: Tensor, params: SamplingParams) -> Tensor:
    """Our filtered probabilities of one row [vocab]."""
    scaled = (logits - logits.max())[None] / params.temperature
    filters = Filters(
        top_k=torch.tensor([min(params.top_k, len(logits)) or len(logits)]),
        top_p=torch.tensor([params.top_p]) if params.top_p < 1 else None,
        min_p=torch.tensor([params.min_p]) if params.min_p > 0 else None,
        typical_p=torch.tensor([params.typical_p]) if params.typical_p < 1 else None,
    )
    weights = kept_weights(scaled, filters)[0].double()
    return weights / weights.sum()


def looser(params: SamplingParams, by: float) -> SamplingParams:
    """The same filters keeping a little more (or less, if negative)."""
    shift = {
        name: min(1.0, max(1e-9, getattr(params, name) + by))
        for name in ("top_p", "typical_p")
        if getattr(params, name) < 1.0
    }
    if params.min_p > 0:
        shift["min_p"] = min(1.0, max(0.0, params.min_p - by))
    return replace(params, **shift)


fractions = st.floats(0.01, 0.99)
logits_of_a_row = st.builds(
    lambda seed, vocab_size, scale: random_logits(1, vocab_size, seed, scale)[0],
    st.integers(0, 2**31),
    st.integers(2, 300),
    st.floats(0.1, 8.0),
)


@pytest.mark.parametrize("names", [("top_k",), ("top_p",), ("min_p",), ("typical_p",)])
@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data(), logits=logits_of_a_row, temperature=st.floats(0.2, 3.0))
def test_a_single_filter_keeps_what_hugging_face_keeps(
    names: tuple[str, ...], data: st.DataObject, logits: Tensor, temperature: float
) -> None:
    values = {
        name: data.draw(st.integers(1, 400) if name == "top_k" else fractions) for name in names
    }
    check(logits, SamplingParams(temperature=temperature, **values))


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    logits=logits_of_a_row,
    temperature=st.floats(0.2, 3.0),
    top_k=st.sampled_from([0, 1, 2, 7, 50]),
    top_p=st.just(1.0) | fractions,
    min_p=st.just(0.0) | st.floats(0.01, 0.5),
)
def test_combined_filters_keep_what_hugging_face_keeps(
    logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    check(
        logits,
        SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p),
    )


@settings(max_examples=60, derandomize=True, deadline=None)
@given(logits=logits_of_a_row, top_k=st.sampled_from([2, 7, 50]), typical_p=fractions)
def test_typical_p_after_top_k_keeps_what_hugging_face_keeps(
    logits: Tensor, top_k: int, typical_p: float
) -> None:
    check(logits, SamplingParams(top_k=top_k, typical_p=typical_p))


def check(logits: Tensor, params: SamplingParams) -> None:
    ours = filtered(logits, params)
    expected = reference_filter(logits, params)
    fewest = reference_filter(logits, looser(params, -TOLERANCE)) > UNDERFLOW
    most = reference_filter(logits, looser(params, TOLERANCE)) > 0
    assert torch.all((ours > 0) >= fewest), "a token is missing"
    assert torch.all((ours > 0) <= most), "a token is left that should not be"
    if torch.equal(fewest, expected > UNDERFLOW):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_tokens_that_tie_with_the_cutoff_are_all_kept() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 1.0, -1.0, 1.0])
    for params in (SamplingParams(top_k=2), SamplingParams(top_p=0.5), SamplingParams(min_p=0.3)):
        assert torch.nonzero(filtered(logits, params)).flatten().tolist() == [1, 2, 3, 5]


def test_the_most_likely_token_stays_when_top_p_is_tiny() -> None:
    logits = random_logits(1, 100, seed=3)[0]
    kept = torch.nonzero(filtered(logits, SamplingParams(top_p=1e-9))).flatten()
    assert kept.tolist() == [int(logits.argmax())]


def test_filters_of_one_row_do_not_touch_another() -> None:
    logits = random_logits(4, 64, seed=5)
    params = [
        SamplingParams(top_k=3),
        SamplingParams(),
        SamplingParams(top_p=0.4, min_p=0.1),
        SamplingParams(typical_p=0.3),
    ]
    scaled = logits - logits.amax(-1, keepdim=True)
    together = kept_weights(
        scaled,
        Filters(
            top_k=torch.tensor([3, 64, 64, 64]),
            top_p=torch.tensor([1.0, 1.0, 0.4, 1.0]),
            min_p=torch.tensor([0.0, 0.0, 0.1, 0.0]),
            typical_p=torch.tensor([1.0, 1.0, 1.0, 0.3]),
        ),
    )
    for i, one in enumerate(params):
        alone = filtered(logits[i], one)
        torch.testing.assert_close(together[i].double() / together[i].double().sum(), alone)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocab_size=st.sampled_from([1, 2, 63, 64, 65, 128, 300, 1000]),
    uniform=st.sampled_from([0.0, 0.25, 0.5, 1 - 2.0**-53]) | st.floats(0, 1, exclude_max=True),
    share=st.floats(0.0, 1.0),
)
def test_draw_inverts_the_cumulative_distribution(
    seed: int, vocab_size: int, uniform: float, share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(3, vocab_size, generator=generator)
    weights *= torch.rand(3, vocab_size, generator=generator) < share  # some have no weight
    weights[:, int(torch.randint(vocab_size, (1,), generator=generator))] = 0.5
    token_ids, is_distribution = draw(weights, torch.full((3,), uniform, dtype=torch.float64))
    assert is_distribution.all()
    cumulative = weights.double().cumsum(-1)
    for i, token_id in enumerate(token_ids.tolist()):
        target = uniform * cumulative[i, -1]
        slack = 1e-6 * cumulative[i, -1]
        assert weights[i, token_id] > 0
        assert cumulative[i, token_id] - weights[i, token_id] - slack <= target
        assert target <= cumulative[i, token_id] + slack


def test_draw_tells_rows_that_are_no_distribution() -> None:
    weights = torch.ones(3, 70)
    weights[0] = 0.0
    weights[2, 5] = float("nan")
    token_ids, is_distribution = draw(weights, torch.full((3,), 0.5, dtype=torch.float64))
    assert is_distribution.tolist() == [False, True, False]
    assert ((token_ids >= 0) & (token_ids < 70)).all()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6, top_p=0.9),
        SamplingParams(temperature=1.5, top_k=12),
        SamplingParams(typical_p=0.7),
    ],
    ids=["plain", "top_p", "top_k", "typical_p"],
)
def test_draws_follow_the_filtered_distribution(params: SamplingParams) -> None:
    """Chi-square over 40,000 draws from the numbers that completions really use."""
    num_draws, vocab_size = 40_000, 150
    logits = random_logits(1, vocab_size, seed=11, scale=1.5)[0]
    expected = reference_filter(logits, params)
    weights = filtered(logits, params).float().expand(num_draws, vocab_size)
    keys = stream_keys(
        np.arange(num_draws // 8, dtype=np.uint64).repeat(8), np.zeros(num_draws, dtype=np.uint64)
    )
    positions = np.tile(np.arange(8, dtype=np.uint64), num_draws // 8)
    token_ids, _ = draw(weights, torch.from_numpy(uniforms(keys, positions)))
    counts = torch.bincount(token_ids, minlength=vocab_size).double()
    assert not counts[expected == 0].any()
    often = expected * num_draws >= 5  # the statistic is chi-square distributed for these only
    rest = torch.stack([counts[~often].sum(), (expected[~often] * num_draws).sum()])
    statistic = ((counts - expected * num_draws)[often] ** 2 / (expected * num_draws)[often]).sum()
    statistic += (rest[0] - rest[1]) ** 2 / rest[1].clamp_min(5)
    degrees = int(often.sum())
    # Mean and four standard deviations of a chi-square variable; the seeds are fixed.
    assert float(statistic) < degrees + 4 * (2 * degrees) ** 0.5
