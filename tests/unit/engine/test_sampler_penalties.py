"""Penalties and token constraints: against Hugging Face and the formulas, and their state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from services.engine.errors import InvalidRequestError
from services.engine.request import SamplingParams
from services.engine.sampler import SampleRow, check_token_constraints
from services.engine.sampler.constraints import Constraints
from services.engine.sampler.penalties import Penalties
from tests.unit.engine.sampler_cases import EOS, random_logits, row

VOCAB_SIZE = 40
CPU = torch.device("cpu")
NEG_INF = float("-inf")

tokens = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=300)
penalised = st.builds(
    lambda prompt, output, repetition, presence, frequency: row(
        SamplingParams(
            repetition_penalty=repetition,
            presence_penalty=presence,
            frequency_penalty=frequency,
        ),
        prompt,
        output,
    ),
    st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=20),
    tokens,
    st.just(1.0) | st.floats(0.2, 3.0),
    st.just(0.0) | st.floats(-2.0, 2.0),
    st.just(0.0) | st.floats(-2.0, 2.0),
)


def apply(rows: list[SampleRow], logits: Tensor) -> Tensor:
    edited = logits.clone()
    penalties = Penalties([r.seq for r in rows], VOCAB_SIZE, CPU)
    if not penalties.empty:
        penalties.apply_(edited)
    return edited


def reference(one: SampleRow, logits: Tensor) -> Tensor:
    """The penalties of one row [vocab] by Hugging Face's processor and the published formula."""
    seq, params = one.seq, one.seq.request.params
    processor = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)
    edited = processor(torch.tensor([seq.token_ids]), logits[None].clone())[0]
    for token_id in range(VOCAB_SIZE):
        count = seq.token_ids[seq.num_prompt_tokens :].count(token_id)
        edited[token_id] -= params.presence_penalty * (count > 0) + params.frequency_penalty * count
    return edited


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(penalised, min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_penalties_equal_the_reference_row_by_row(rows: list[SampleRow], seed: int) -> None:
    logits = random_logits(len(rows), VOCAB_SIZE, seed)
    edited = apply(rows, logits)
    for i, one in enumerate(rows):
        torch.testing.assert_close(edited[i], reference(one, logits[i]), rtol=1e-5, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(penalised, min_size=1, max_size=4), steps=st.lists(tokens, max_size=4))
def test_penalties_kept_over_steps_equal_those_rebuilt(
    rows: list[SampleRow], steps: list[list[int]]
) -> None:
    penalties = Penalties([r.seq for r in rows], VOCAB_SIZE, CPU)
    for seed, new_tokens in enumerate(steps):
        for i, one in enumerate(rows):
            one.seq.token_ids.extend(new_tokens[i:])
        logits = random_logits(len(rows), VOCAB_SIZE, seed)
        kept = logits.clone()
        if not penalties.empty:
            penalties.apply_(kept)
        torch.testing.assert_close(kept, apply(rows, logits))


def test_penalties_follow_a_sequence_that_was_rolled_back() -> None:
    one = row(SamplingParams(frequency_penalty=1.0), [1], [5, 5, 7])
    penalties = Penalties([one.seq], VOCAB_SIZE, CPU)
    penalties.apply_(torch.zeros(1, VOCAB_SIZE))
    del one.seq.token_ids[2:]
    logits = torch.zeros(1, VOCAB_SIZE)
    penalties.apply_(logits)
    assert logits[0, 5] == -1.0
    assert logits[0, 7] == 0.0


def test_prompt_tokens_count_for_repetition_only() -> None:
    logits = torch.ones(1, VOCAB_SIZE)
    params = SamplingParams(repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=1.0)
    edited = apply([row(params, [4], [6])], logits)
    assert edited[0, 4] == 0.5
    assert edited[0, 6] == 0.5 - 2.0
    assert edited[0, 8] == 1.0


def constrain(rows: list[SampleRow], logits: Tensor) -> Tensor:
    edited = logits.clone()
    constraints = Constraints([r.seq.request.params for r in rows], (EOS,), CPU)
    done = np.array([r.seq.num_output_tokens for r in rows], dtype=np.int64)
    constraints.apply_(edited, done)
    return edited


def test_logit_bias_is_added_to_its_own_row() -> None:
    logits = random_logits(2, VOCAB_SIZE, seed=1)
    biased = row(SamplingParams(logit_bias={3: 5.0, 7: -100.0}))
    edited = constrain([row(SamplingParams()), biased], logits)
    expected = logits.clone()
    expected[1, 3] += 5.0
    expected[1, 7] -= 100.0
    torch.testing.assert_close(edited, expected)


def test_only_allowed_tokens_stay_finite() -> None:
    logits = random_logits(3, VOCAB_SIZE, seed=2)
    rows = [
        row(SamplingParams(allowed_token_ids=(4, 9), banned_token_ids=(9,))),
        row(SamplingParams()),
        row(SamplingParams(banned_token_ids=(0, 1))),
    ]
    edited = constrain(rows, logits)
    assert torch.nonzero(edited[0] > NEG_INF).flatten().tolist() == [4]
    assert edited[0, 4] == logits[0, 4]
    assert torch.equal(edited[1], logits[1])
    assert torch.nonzero(edited[2] == NEG_INF).flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("params", "masked"),
    [
        (SamplingParams(min_tokens=3, stop_token_ids=(8,)), [EOS, 8]),
        (SamplingParams(min_tokens=3, stop_token_ids=(8,), ignore_eos=True), [8]),
        (SamplingParams(min_tokens=2, stop_token_ids=(8,)), []),
    ],
)
def test_tokens_that_would_end_too_early_are_masked(
    params: SamplingParams, masked: list[int]
) -> None:
    edited = constrain([row(params, output=[5, 6])], torch.zeros(1, VOCAB_SIZE))
    assert torch.nonzero(edited[0] == NEG_INF).flatten().tolist() == masked


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (SamplingParams(logit_bias={VOCAB_SIZE: 1.0}), "logit_bias"),
        (SamplingParams(allowed_token_ids=(VOCAB_SIZE,)), "allowed_token_ids"),
        (SamplingParams(banned_token_ids=(-1,)), "banned_token_ids"),
        (SamplingParams(stop_token_ids=(VOCAB_SIZE + 7,)), "stop_token_ids"),
        (
            SamplingParams(allowed_token_ids=(5,), banned_token_ids=(5,)),
            "allowed_token_ids",
        ),
        (SamplingParams(allowed_token_ids=(EOS,), min_tokens=1), "allowed_token_ids"),
        (SamplingParams(banned_token_ids=tuple(range(VOCAB_SIZE))), "banned_token_ids"),
    ],
)
def test_token_constraints_that_cannot_hold_are_refused_by_name(
    params: SamplingParams, field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_token_constraints(params, VOCAB_SIZE, (EOS,))
    assert refused.value.field == field


def test_token_constraints_that_leave_one_token_are_accepted() -> None:
    check_token_constraints(
        SamplingParams(allowed_token_ids=(EOS, 5), min_tokens=1), VOCAB_SIZE, (EOS,)
    )
    check_token_constraints(
        SamplingParams(banned_token_ids=tuple(range(1, VOCAB_SIZE))), VOCAB_SIZE, (EOS,)
    )
