"""The sampler as a whole: every row by its own parameters, whatever stands around it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.request import SamplingParams
from services.engine.sampler import Sampler, SampleRow
from tests.unit.engine.sampler_cases import EOS, random_logits, row

VOCAB_SIZE = 70


def sampler() -> Sampler:
    return Sampler(VOCAB_SIZE, (EOS,))


token_ids = st.integers(0, VOCAB_SIZE - 1)
anything = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    top_k=st.sampled_from([0, 1, 5, 500]),
    min_p=st.sampled_from([0.0, 0.05]),
    typical_p=st.sampled_from([1.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    logit_bias=st.dictionaries(token_ids, st.floats(-5, 5), max_size=3),
    banned_token_ids=st.lists(token_ids, max_size=3).map(tuple),
    min_tokens=st.integers(0, 4),
    seed=st.integers(0, 2**64 - 1),
    logprobs=st.sampled_from([None, 0, 3]),
)
rows_of_a_batch = st.lists(
    st.builds(
        row,
        anything,
        st.lists(token_ids, min_size=1, max_size=6),
        st.lists(token_ids, max_size=6),
        sample_index=st.integers(0, 3),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(rows=rows_of_a_batch, seed=st.integers(0, 1000))
def test_a_token_does_not_depend_on_the_batch_around_it(rows: list[SampleRow], seed: int) -> None:
    logits = random_logits(len(rows), VOCAB_SIZE, seed)
    together = sampler().sample(logits.clone(), rows).tokens()
    for i, one in enumerate(rows):
        (alone,) = sampler().sample(logits[i : i + 1].clone(), [one]).tokens()
        assert alone.token_id == together[i].token_id
        assert alone.valid
        assert together[i].valid
        assert (alone.logprob is None) == (together[i].logprob is None)
        assert (alone.cumulative is None) == (together[i].cumulative is None)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(rows=rows_of_a_batch, order=st.randoms(use_true_random=False))
def test_a_sampler_that_served_other_batches_samples_the_same(
    rows: list[SampleRow], order: random.Random
) -> None:
    """State kept between steps, with rows that come, go and move, changes nothing."""
    used = sampler()
    for step in range(4):
        chosen = order.sample(rows, order.randint(1, len(rows)))
        logits = random_logits(len(chosen), VOCAB_SIZE, step)
        expected = sampler().sample(logits.clone(), chosen).token_ids.tolist()
        assert used.sample(logits.clone(), chosen).token_ids.tolist() == expected
        for one, token_id in zip(chosen, expected, strict=True):
            one.seq.token_ids.append(token_id)


def generate(params: SamplingParams, num_tokens: int, **fields: object) -> list[int]:
    """Decode against random logits that depend on the position alone."""
    one = row(params, **fields)  # type: ignore[arg-type]
    own = sampler()
    for position in range(num_tokens):
        result = own.sample(random_logits(1, VOCAB_SIZE, position), [one])
        one.seq.token_ids.append(int(result.token_ids[0]))
    return one.seq.token_ids[one.seq.num_prompt_tokens :]


def test_a_seed_reproduces_and_other_seeds_or_completions_differ() -> None:
    first = generate(SamplingParams(seed=5), 20)
    assert generate(SamplingParams(seed=5), 20) == first
    assert generate(SamplingParams(seed=5), 20, request_id="another") == first
    assert generate(SamplingParams(seed=6), 20) != first
    assert generate(SamplingParams(seed=5), 20, sample_index=1) != first


def test_requests_without_a_seed_differ_but_each_survives_preemption() -> None:
    params, own = SamplingParams(), sampler()
    a, b = row(params, request_id="a"), row(params, request_id="b")
    logits = torch.zeros(1, VOCAB_SIZE)
    first = [int(own.sample(logits.clone(), [a]).token_ids[0])]
    again = [int(own.sample(logits.clone(), [a]).token_ids[0])]
    assert first == again  # asked again at the same position, as after a preemption
    draws = [
        [
            int(own.sample(logits.clone(), [replace(one, sample_index=i)]).token_ids[0])
            for i in range(9)
        ]
        for one in (a, b)
    ]
    assert draws[0] != draws[1]


def test_greedy_takes_the_first_most_likely_token() -> None:
    logits = random_logits(3, VOCAB_SIZE, seed=4)
    logits[1, [9, 30]] = 50.0
    result = sampler().sample(logits.clone(), [row(SamplingParams(temperature=0.0))] * 3)
    assert result.token_ids.tolist() == logits.argmax(-1).tolist()
    assert result.token_ids[1] == 9
    assert result.logprobs == {}


def test_greedy_obeys_penalties_and_constraints() -> None:
    logits = torch.zeros(1, VOCAB_SIZE)
    logits[0, [EOS, 10, 11]] = torch.tensor([9.0, 8.0, 7.9])
    params = SamplingParams(temperature=0.0, min_tokens=5, frequency_penalty=0.2)
    assert sampler().sample(logits.clone(), [row(params, output=[10])]).token_ids[0] == 11


def test_a_vanishing_temperature_is_greedy() -> None:
    logits = random_logits(1, VOCAB_SIZE, seed=8)
    for temperature in (1e-45, 1e-6, 1e-3):
        result = sampler().sample(logits.clone(), [row(SamplingParams(temperature=temperature))])
        assert result.token_ids[0] == logits.argmax()
        assert result.valid.all()


def test_logprobs_are_those_of_the_unmodified_model() -> None:
    logits = random_logits(2, VOCAB_SIZE, seed=9)
    params = SamplingParams(
        temperature=0.3, top_k=4, logprobs=3, repetition_penalty=1.5, logit_bias={5: 3.0}, seed=1
    )
    rows = [row(SamplingParams(temperature=0.0)), row(params)]
    tokens = sampler().sample(logits.clone(), rows).tokens()
    expected = logits[1].log_softmax(-1)
    assert tokens[0].logprob is None
    assert tokens[0].cumulative is None
    assert tokens[1].cumulative == pytest.approx(float(expected[tokens[1].token_id]), abs=1e-5)
    position = tokens[1].logprob
    assert position is not None
    assert position.chosen is not None
    assert position.chosen.token_id == tokens[1].token_id
    assert position.chosen.logprob == pytest.approx(tokens[1].cumulative, abs=1e-5)
    assert [entry.token_id for entry in position.top] == expected.topk(3).indices.tolist()


def test_best_of_needs_log_probabilities_even_if_none_are_returned() -> None:
    params = SamplingParams(n=1, best_of=3, seed=2)
    rows = [row(params, sample_index=i) for i in range(3)]
    logits = random_logits(1, VOCAB_SIZE, seed=10).repeat(3, 1)
    result = sampler().sample(logits.clone(), rows)
    expected = logits.log_softmax(-1)
    for i, token in enumerate(result.tokens()):
        assert token.cumulative == pytest.approx(float(expected[i, token.token_id]), abs=1e-5)
        assert token.logprob is None


def test_beams_get_their_best_continuations_after_the_penalties() -> None:
    logits = random_logits(2, VOCAB_SIZE, seed=12)
    beam = row(SamplingParams(beam_width=3, banned_token_ids=(int(logits[0].argmax()),)))
    result = sampler().sample(logits.clone(), [beam, row(SamplingParams(seed=3))])
    expected = logits[0].clone()
    expected[expected.argmax()] = float("-inf")
    best = expected.log_softmax(-1).topk(6)
    assert list(result.candidates) == [0]
    assert [token_id for token_id, _ in result.candidates[0]] == best.indices.tolist()
    assert [logprob for _, logprob in result.candidates[0]] == pytest.approx(best.values.tolist())
    assert result.token_ids[0] == best.indices[0]


def test_beam_candidates_leave_out_what_is_forbidden() -> None:
    beam = row(SamplingParams(beam_width=4, allowed_token_ids=(7, 8)))
    result = sampler().sample(random_logits(1, VOCAB_SIZE, seed=13), [beam])
    assert sorted(token_id for token_id, _ in result.candidates[0]) == [7, 8]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_nan_is_told_and_spoils_no_other(temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=4, top_p=0.9)
    logits = random_logits(3, VOCAB_SIZE, seed=14)
    expected = sampler().sample(logits.clone(), [row(params)] * 3).token_ids.tolist()
    logits[1, 17] = float("nan")
    result = sampler().sample(logits, [row(params)] * 3)
    assert result.valid.tolist() == [True, False, True]
    assert [token.valid for token in result.tokens()] == [True, False, True]
    assert [result.token_ids[0], result.token_ids[2]] == [expected[0], expected[2]]
    assert 0 <= result.token_ids[1] < VOCAB_SIZE


@pytest.mark.gpu
def test_a_gpu_samples_the_same_tokens() -> None:
    """Up to rounding, which decides one draw in a million; these are fixed."""
    params = [
        SamplingParams(temperature=0.0, repetition_penalty=1.2),
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_k=5, top_p=0.8, min_p=0.01, logprobs=2),
        SamplingParams(seed=3, typical_p=0.7, presence_penalty=0.5, banned_token_ids=(4,)),
        SamplingParams(beam_width=2),
    ]
    rows = [row(one, output=[5, 5, 9], request_id=str(i)) for i, one in enumerate(params)]
    logits = random_logits(len(rows), VOCAB_SIZE, seed=15)
    expected = sampler().sample(logits.clone(), rows)
    result = Sampler(VOCAB_SIZE, (EOS,), "cuda").sample(logits.cuda(), rows)
    assert result.token_ids.tolist() == expected.token_ids.tolist()
    assert result.valid.all()
    assert result.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert [t for t, _ in result.candidates[4]] == [t for t, _ in expected.candidates[4]]
