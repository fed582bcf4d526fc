"""Passages and turns within the model's context."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.packing import Packing, pack
from services.rag.prompts.orrery import OrreryStyle
from services.rag.services import Tokenized
from services.rag.types import Message, Turn
from services.runtime.errors import ContextTooLong
from tests.fakes.rag_services import num_tokens, passage


class Counter:
    """Counts words, and how often it was asked."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.chats: list[Sequence[Message]] = []

    async def __call__(self, chat: Sequence[Message]) -> Tokenized:
        self.chats.append(chat)
        return Tokenized(tuple(range(num_tokens(chat))), self.max_model_len)


def packing(
    sizes: list[int], turns: int = 0, max_passages: int = 100, max_tokens: int = 10
) -> Packing:
    passages = [
        passage(" ".join([f"word{index}x"] * size), ordinal=index)
        for index, size in enumerate(sizes)
    ]
    history = [Turn(f"earlier{n} question", "an answer of some words") for n in range(turns)]
    return Packing(OrreryStyle(), "Who is it?", passages, history, max_passages, max_tokens)


async def test_what_fits_is_counted_once_and_left_alone() -> None:
    count = Counter(1000)
    packed = await pack(packing([5, 5]), count)
    assert (packed.used, packed.notices, len(count.chats)) == ((0, 1), (), 1)


async def test_passages_beyond_the_most_are_left_out_and_said() -> None:
    packed = await pack(packing([5, 5, 5], max_passages=2), Counter(1000))
    assert packed.used == (0, 1)
    assert packed.notices == ("1 passages were left out: at most 2 are put before the model",)


async def test_long_passage_is_left_out_and_the_short_one_after_it_kept() -> None:
    count = Counter(100)
    packed = await pack(packing([20, 200, 20]), count)
    assert packed.used == (0, 2)
    assert len(packed.notices) == 1
    assert "doc#1 was left out: it does not fit" in packed.notices[0]
    assert len(count.chats) == 2


async def test_oldest_turns_go_before_any_passage() -> None:
    packed = await pack(packing([20, 20], turns=6), Counter(105))
    assert packed.used == (0, 1)
    assert 0 < packed.num_turns < 6
    assert "oldest turns" in packed.notices[0]


async def test_question_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ContextTooLong) as caught:
        await pack(packing([5], turns=1), Counter(12))
    assert caught.value.field == "question"


@given(
    st.lists(st.integers(1, 60), max_size=8),
    st.integers(0, 4),
    st.integers(0, 8),
    st.integers(16, 300),
)
async def test_packed_prompt_fits_and_nothing_is_cut_or_left_out_in_silence(
    sizes: list[int], turns: int, max_passages: int, max_model_len: int
) -> None:
    asked = packing(sizes, turns, max_passages)
    count = Counter(max_model_len)
    packed = await pack(asked, count)
    assert len(packed.token_ids) + asked.max_tokens <= max_model_len
    assert len(count.chats) <= 1 + len(sizes) + turns
    assert list(packed.used) == sorted(set(packed.used))
    assert len(packed.used) <= max_passages
    prompt = count.chats[-1][0].content
    for number, index in enumerate(packed.used, start=1):
        assert f"[{number}] \n{asked.passages[index].text}\n" in prompt, "a passage was cut"
    assert len(re.findall(r"^\[\d+\] ", prompt, re.MULTILINE)) == len(packed.used)
    left_out = min(max_passages, len(sizes)) - len(packed.used)
    assert sum("does not fit" in notice for notice in packed.notices) == left_out
    assert any("at most" in notice for notice in packed.notices) == (len(sizes) > max_passages)
    assert any("turns" in notice for notice in packed.notices) == (packed.num_turns < turns)
