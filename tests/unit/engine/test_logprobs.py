"""Log-probabilities against torch's log-softmax, ranks by counting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.logprobs import position_logprobs, token_logprobs, with_texts
from services.engine.request import PositionLogprobs, TokenLogprob
from tests.unit.engine.sampler_cases import random_logits


@settings(max_examples=60, deadline=None)
@given(data=st.data(), vocab_size=st.integers(1, 60), seed=st.integers(0, 1000))
def test_positions_hold_the_chosen_and_the_best_tokens(
    data: st.DataObject, vocab_size: int, seed: int
) -> None:
    logits = random_logits(4, vocab_size, seed)
    token_ids = data.draw(st.lists(st.integers(0, vocab_size - 1), min_size=4, max_size=4))
    num_top = data.draw(st.lists(st.integers(0, 20), min_size=4, max_size=4))
    expected = logits.log_softmax(-1)
    positions = position_logprobs(logits, torch.tensor(token_ids), num_top)
    for i, position in enumerate(positions):
        chosen = position.chosen
        assert chosen is not None
        assert chosen.token_id == token_ids[i]
        assert chosen.logprob == pytest.approx(float(expected[i, token_ids[i]]), abs=1e-5)
        order = expected[i].argsort(descending=True).tolist()
        assert chosen.rank == order.index(token_ids[i]) + 1
        assert [t.token_id for t in position.top] == order[: num_top[i]]
        assert [t.rank for t in position.top] == list(range(1, len(position.top) + 1))
        assert [t.logprob for t in position.top] == pytest.approx(
            expected[i, order[: num_top[i]]].tolist(), abs=1e-5
        )


def test_equal_logits_share_the_best_rank() -> None:
    logits = torch.tensor([[2.0, 5.0, 2.0, 2.0]])
    (position,) = position_logprobs(logits, torch.tensor([3]), [0])
    assert position.chosen is not None
    assert position.chosen.rank == 2


def test_token_logprobs_equal_log_softmax() -> None:
    logits = random_logits(5, 33, seed=2, scale=20.0)
    token_ids = torch.tensor([0, 32, 7, 7, 1])
    expected = logits.log_softmax(-1)[torch.arange(5), token_ids]
    torch.testing.assert_close(token_logprobs(logits, token_ids), expected)


class Letters:
    """A vocabulary in which a token is a letter."""

    def token_text(self, token_id: int) -> str:
        return chr(97 + token_id)

    def token_bytes(self, token_id: int) -> bytes:
        return self.token_text(token_id).encode()


def test_with_texts_fills_in_every_token() -> None:
    position = PositionLogprobs(
        chosen=TokenLogprob(1, -0.5, 1), top=(TokenLogprob(1, -0.5, 1), TokenLogprob(2, -1.5, 2))
    )
    filled = with_texts(position, Letters())
    assert filled.chosen == TokenLogprob(1, -0.5, 1, "b", b"b")
    assert [(t.token, t.token_bytes) for t in filled.top] == [("b", b"b"), ("c", b"c")]
    assert with_texts(PositionLogprobs(chosen=None), Letters()) == PositionLogprobs(chosen=None)
