"""The majority of several samples."""

from __future__ import annotations

import pytest

from services.rag.voting import normalised, vote


def test_majority_is_of_answers_that_say_the_same() -> None:
    result = vote(["Tamir Osker", "the Veloria", "tamir osker.", "Osker"])
    assert (result.winner, result.agreement) == (0, 0.5)


def test_tie_goes_to_the_first_drawn() -> None:
    assert vote(["b", "a", "a", "b"]).winner == 0


def test_one_sample_agrees_with_itself() -> None:
    assert vote(["x"]) == vote(["y"])
    assert vote(["x"]).agreement == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"), [("The  Veloria!", "veloria"), ("A man, an oar", "man oar"), ("", "")]
)
def test_answers_are_compared_as_squad_does(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_sample_without_an_answer_has_no_vote() -> None:
    result = vote(["", "", "Tamir Osker", ""])
    assert (result.winner, result.agreement) == (2, 0.25)
    assert vote(["", " "]).winner == 0


def test_answers_of_nothing_but_an_article_or_a_sign_differ() -> None:
    assert vote(["A", "The", "the"]).winner == 1
    assert vote(["?", "!", "!"]).winner == 1
