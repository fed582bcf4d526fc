"""What is asked: of the kinds named, by the seed, in both transports' words."""

from __future__ import annotations

from random import Random

import pytest

from tests.load.asks import MIXED_SHARES, WORKLOADS, Completion, Size, Subject, draw_ask

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


def test_what_cannot_be_asked_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="workload: expected one of"):
        draw_ask("nothing", SUBJECT, Random(0))
    with pytest.raises(ValueError, match="questions: expected at least one"):
        draw_ask("rag", Subject("model", 32), Random(0))
