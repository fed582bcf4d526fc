"""What is asked: of the kinds named, by the seed, in both transports' words."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.load.asks import MIXED_SHARES, WORKLOADS, Completion, Size, Subject, draw_ask

SUBJECT = Subject("model", vocab_size=32, collection="demo", questions=("Who?", "Where?"))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_asks_the_same(workload: str) -> None:
    first = [draw_ask(workload, SUBJECT, Random(7)) for _ in range(2)]
    assert first[0] == first[1]


def test_the_mixture_has_every_kind_by_its_share() -> None:
    rng = Random(0)
    kinds = [draw_ask("mixed", SUBJECT, rng)[0] for _ in range(4000)]
    for kind, share in MIXED_SHARES.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.03)


def test_a_completion_has_the_size_that_is_asked_for() -> None:
    _, ask = draw_ask("generation", SUBJECT, Random(0), Size(17, 5))
    assert isinstance(ask, Completion)
    assert (len(ask.prompt), ask.max_tokens) == (17, 5)
    assert all(0 <= token < SUBJECT.vocab_size for token in ask.prompt)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 1 << 32))
def test_lengths_are_drawn_between_the_least_and_the_most(least: int, more: int, seed: int) -> None:
    bounds = (least, least + more)
    subject = Subject("model", 32, prompt_tokens=bounds, output_tokens=bounds)
    _, ask = draw_ask("generation", subject, Random(seed))
    assert isinstance(ask, Completion)
    assert bounds[0] <= len(ask.prompt) <= bounds[1]
    assert bounds[0] <= ask.max_tokens <= bounds[1]


@pytest.mark.parametrize("name", ["prompt_tokens", "output_tokens"])
@pytest.mark.parametrize("bounds", [(0, 4), (5, 4), (-1, -1)])
def test_lengths_that_are_none_are_refused_by_name(name: str, bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected 1 <= least <= most"):
        Subject("model", 32, **{name: bounds})  # type: ignore[arg-type]


def test_what_cannot_be_asked_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="workload: expected one of"):
        draw_ask("nothing", SUBJECT, Random(0))
    with pytest.raises(ValueError, match="questions: expected at least one"):
        draw_ask("rag", Subject("model", 32), Random(0))
