"""What is searched for, and how rankings become one."""

from __future__ import annotations

import math

import pytest

from services.rag.queries import fuse, joined_question, mean_vector, refers_back, wordings_of
from services.rag.types import Turn
from tests.fakes.rag_services import passage


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who commands the Veloria?", False),
        ("Who commands it?", True),
        ("And when?", True),
        ("Where does she live in Bramhaven?", True),
        ("What happened in 1874?", False),
    ],
)
def test_question_refers_back_by_a_pronoun_or_by_naming_nothing(
    question: str, expected: bool
) -> None:
    assert refers_back(question) is expected


def test_joining_goes_back_to_the_question_that_stands_alone() -> None:
    history = [
        Turn("Where is Bramhaven?", "North"),
        Turn("Who commands the Veloria?", "Osker"),
        Turn("When was it launched?", "1874"),
    ]
    joined = joined_question("And how long is it?", history)
    assert joined == "Who commands the Veloria? When was it launched? And how long is it?"
    assert joined_question("Who founded Aska?", history) == "Who founded Aska?"


def test_wordings_lose_bullets_doubles_and_the_question_itself() -> None:
    reply = "1. Who leads it?\n\n- Who leads it?\n* The question\nWho is captain?\nOne more"
    assert wordings_of(reply, "The question", 2) == ["Who leads it?", "Who is captain?"]


def test_mean_vector_is_of_length_one() -> None:
    mean = mean_vector([[1.0, 0.0], [0.0, 1.0]])
    assert mean == pytest.approx([math.sqrt(0.5)] * 2)
    assert mean_vector([[1.0], [-1.0]]) == [0.0]


def test_fusing_prefers_what_several_rankings_have() -> None:
    first, second, third = (passage("x", ordinal=n) for n in range(3))
    fused = fuse([[first, second], [third, second]], k=2)
    assert [each.chunk_id for each in fused] == ["doc#1", "doc#0"]
    assert fused[0].score == pytest.approx(2 / 22)


def test_one_ranking_stays_as_it_is() -> None:
    ranking = [passage("x", ordinal=n) for n in range(3)]
    assert fuse([ranking], k=2) == ranking[:2]
