"""Sentences and words as spans of the text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.sentences import names, sentences, words


def split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Dr. Osker met J. Smith. He left!", ["Dr. Osker met J. Smith.", "He left!"]),
        ("It weighs 3.5 t. So what?", ["It weighs 3.5 t.", "So what?"]),
        ("A line that\ngoes on. Next", ["A line that\ngoes on.", "Next"]),
        ("# Title\n\nThe text.", ["# Title", "The text."]),
        ("- one\n- two", ["- one", "- two"]),
        ("| a | b |\n| c | d |", ["| a | b |", "| c | d |"]),
        ("He said “no.” She left.", ["He said “no.”", "She left."]),
        ("It was founded in 1874. 12 people came.", ["It was founded in 1874.", "12 people came."]),
        ("e.g. this one", ["e.g. this one"]),
        ("# Title\r\n\r\nThe text\r\ngoes on.", ["# Title", "The text\r\ngoes on."]),
        ("# Title\r \rThe text.", ["# Title", "The text."]),
        ("| a |\r\n| b |\r\nc", ["| a |", "| b |", "c"]),
        ("東京は日本の首都です。大阪は違います！", ["東京は日本の首都です。", "大阪は違います！"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_readers_end_them(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@given(st.text(alphabet=st.sampled_from("aB1 .!?\n|-#“”'"), max_size=80))
def test_sentences_are_ordered_disjoint_and_hold_every_visible_character(text: str) -> None:
    spans = sentences(text)
    covered = "".join(text[span.start : span.end] for span in spans)
    assert "".join(covered.split()) == "".join(text.split())
    ends = [0, *(bound for span in spans for bound in (span.start, span.end))]
    assert ends == sorted(ends)


@given(st.text(max_size=80))
def test_words_point_at_their_characters(text: str) -> None:
    for word in words(text):
        assert word.key
        written = unicodedata.normalize("NFKC", text[word.start : word.end])
        assert written.casefold().startswith(word.key)


def test_words_are_compared_without_case_possessive_and_plural() -> None:
    assert [word.key for word in words("Veloria's SHIPS, 3,416 six-fold glass")] == [
        "veloria",
        "ship",
        "3,416",
        "six",
        "fold",
        "glass",
    ]


def test_accents_and_ligatures_are_compared_however_they_are_written() -> None:
    composed, decomposed = "Crème brûlée ﬁnale", unicodedata.normalize("NFD", "Crème brûlée finale")
    assert composed != decomposed
    assert [word.key for word in words(composed)] == [word.key for word in words(decomposed)]
    assert words(decomposed)[1].end == len(unicodedata.normalize("NFD", "Crème brûlée"))


def test_characters_of_scripts_without_spaces_are_words() -> None:
    assert [word.key for word in words("人口は3416人 Kelm")] == [
        "人",
        "口",
        "は",
        "3416",
        "人",
        "kelm",
    ]


def test_names_are_the_words_that_begin_with_a_capital_or_digit_but_the_first() -> None:
    assert names("Who built the Tevamere Hall in 1662?") == {"tevamere", "hall", "1662"}
    assert names("Where does it stand?") == set()
