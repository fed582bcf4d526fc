"""Which words of the passages support an answer."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.rag.citing import cite
from services.rag.prompts.style import Marker
from services.rag.types import Passage
from tests.fakes.rag_services import passage

SHIP = passage(
    "# Veloria\n\nThe Veloria was launched in 1874. The captain of\nthe Veloria is Tamir Osker.\n",
    document="ship",
    title="Veloria",
    start=100,
)
NEAR = passage("The captain of the Velorio is Tamir Osker.", document="near", title="Velorio")
TOWN = passage(
    "Bramhaven has a population of 3416 people. It lies at the mouth of the Esker. The mayor of "
    "Bramhaven was taught by Tamir Osker.",
    document="town",
    title="Bramhaven",
)
QUESTION = "Who commands the Veloria?"


def test_short_answer_is_cited_where_the_question_points() -> None:
    passages = [TOWN, NEAR, SHIP]
    (citation,) = cite("Tamir Osker", QUESTION, passages, [0, 1, 2])
    assert citation.passage == 2
    assert citation.quote == "The captain of\nthe Veloria is Tamir Osker."
    assert (citation.answer_start, citation.answer_end) == (0, 11)
    assert citation.score > 0.8


def test_offsets_and_lines_are_the_documents() -> None:
    (citation,) = cite("Tamir Osker", QUESTION, [SHIP], [0])
    start = SHIP.text.index("The captain")
    assert citation.source_start == 100 + start
    assert citation.source_end == 100 + len(SHIP.text.rstrip())
    assert (citation.line_start, citation.line_end) == (3, 4)


def test_format_without_lines_has_none() -> None:
    (citation,) = cite("Tamir Osker", QUESTION, [replace(SHIP, line_start=0, line_end=0)], [0])
    assert (citation.line_start, citation.line_end) == (0, 0)


def test_lines_stay_within_the_passages_own() -> None:
    extracted = replace(SHIP, line_start=7, line_end=8)
    (citation,) = cite("Tamir Osker", QUESTION, [extracted], [0])
    assert (citation.line_start, citation.line_end) == (8, 8)


def test_each_sentence_of_an_answer_has_its_own_support() -> None:
    answer = "The Veloria was launched in 1874. Bramhaven has 3416 people."
    first, second = cite(answer, "Tell me.", [SHIP, TOWN], [0, 1])
    assert (first.passage, first.quote) == (0, "The Veloria was launched in 1874.")
    assert (second.passage, second.quote) == (1, "Bramhaven has a population of 3416 people.")
    assert answer[second.answer_start : second.answer_end] == "Bramhaven has 3416 people."


def test_what_no_passage_says_has_no_citation() -> None:
    assert cite("Quill Harrow", QUESTION, [SHIP, NEAR, TOWN], [0, 1, 2]) == []
    assert cite("", QUESTION, [SHIP], [0]) == []
    assert cite("Tamir Osker", QUESTION, [SHIP], []) == []


def test_number_must_be_the_passages() -> None:
    assert cite("Bramhaven has a population of 3417 people.", "?", [TOWN], [0]) == []
    assert cite("16", "?", [TOWN], [0]) == []


def test_passage_that_the_model_did_not_see_is_not_cited() -> None:
    (citation,) = cite("Tamir Osker", QUESTION, [SHIP, NEAR], [1])
    assert citation.passage == 1


def test_marker_decides_the_passage() -> None:
    answer = "Its captain is Tamir Osker."
    markers = [Marker(26, (2,))]
    (citation,) = cite(answer, QUESTION, [SHIP, TOWN], [0, 1], markers)
    assert citation.passage == 1
    assert citation.quote == "The mayor of Bramhaven was taught by Tamir Osker."


def test_marker_alone_supports_nothing() -> None:
    assert cite("Quill Harrow", QUESTION, [SHIP], [0], [Marker(12, (1,))]) == []
    assert cite("1888", "When was the Veloria launched?", [SHIP], [0], [Marker(4, (1,))]) == []


def test_verdict_is_cited_from_what_the_question_is_about() -> None:
    question = "Was the Veloria launched in 1874?"
    (citation,) = cite("Yes.", question, [TOWN, SHIP], [0, 1], [Marker(4, (2,))])
    assert citation.quote == "The Veloria was launched in 1874."
    assert 0.2 < citation.score <= 1
    assert cite("No.", "Is glass blown in Aska?", [SHIP], [0], [Marker(3, (1,))]) == []
    assert cite("Yes.", question, [TOWN, SHIP], [0, 1]) == [], "no passage has the word"


def test_marker_numbers_count_the_passages_that_were_used() -> None:
    (citation,) = cite("Tamir Osker", QUESTION, [TOWN, NEAR, SHIP], [2], [Marker(11, (1,))])
    assert citation.passage == 2


def test_marker_of_no_passage_leaves_it_to_the_words() -> None:
    (citation,) = cite("Tamir Osker", QUESTION, [SHIP], [0], [Marker(11, (9,))])
    assert citation.passage == 0


def test_marker_behind_the_full_stop_belongs_to_the_sentence_before() -> None:
    answer = "The Veloria is old. Bramhaven has 3416 people."
    first, second = cite(answer, "?", [SHIP, TOWN], [0, 1], [Marker(19, (1,)), Marker(46, (2,))])
    assert (first.passage, second.passage) == (0, 1)


def test_two_sentences_are_quoted_only_where_both_are_needed() -> None:
    answer = "Bramhaven has a population of 3416 people and lies at the mouth of the Esker."
    (citation,) = cite(answer, "?", [TOWN], [0])
    assert citation.quote.endswith("the mouth of the Esker.")
    assert citation.quote.startswith("Bramhaven has a population")


def test_passage_without_the_names_is_not_cited() -> None:
    assert cite("Tamir Osker", QUESTION, [NEAR, SHIP], [0], names={"veloria"}) == []
    (citation,) = cite("Tamir Osker", QUESTION, [NEAR, SHIP], [0, 1], names={"veloria"})
    assert citation.passage == 1
    marked = cite("Tamir Osker", QUESTION, [NEAR, SHIP], [0, 1], [Marker(11, (2,))], {"veloria"})
    assert marked[0].passage == 1


def test_lines_and_offsets_are_right_whatever_ends_a_line() -> None:
    for end in ("\n", "\r\n", "\r"):
        lines = ["# 𝄞 Veloria", "", "Launched in 1874.", "The captain is 𝄞 Tamir Osker.", ""]
        text = end.join(lines)
        (citation,) = cite("Tamir Osker", QUESTION, [passage(text, title="𝄞 Veloria")], [0])
        assert citation.quote == "The captain is 𝄞 Tamir Osker.", repr(end)
        assert text[citation.source_start : citation.source_end] == citation.quote
        assert citation.line_start == citation.line_end == 4, repr(end)


def test_answer_in_a_script_without_spaces_is_cited() -> None:
    text = "ケルムは港町です。人口は3416人です。市長は佐藤です。"
    (citation,) = cite("人口は3416人", "ケルムの人口は?", [passage(text)], [0])
    assert citation.quote == "人口は3416人です。"
    assert cite("京都大学の学生数", "?", [passage(text)], [0]) == []


TEXTS = st.lists(
    st.sampled_from(
        ["Osker", "Veloria", "is", "the", "1874", ".", "\n", "\r\n", "\n\n", "\r", "𝄞", "# "]
    ),
    max_size=25,
).map(" ".join)


@given(st.lists(TEXTS, max_size=4), TEXTS, TEXTS, st.integers(0, 50))
def test_quotes_are_exactly_the_characters_they_point_at(
    texts: list[str], answer: str, question: str, start: int
) -> None:
    passages: list[Passage] = [
        passage(text, ordinal=n, start=start, title="Veloria") for n, text in enumerate(texts)
    ]
    for citation in cite(answer, question, passages, range(len(passages))):
        text = passages[citation.passage].text
        inside = text[citation.source_start - start : citation.source_end - start]
        assert citation.quote == inside != ""
        assert 0 <= citation.score <= 1
        assert answer[citation.answer_start : citation.answer_end].strip()
        assert 1 <= citation.line_start <= citation.line_end
        before = re.split(r"\r\n|\r|\n", text[: citation.source_start - start])
        assert citation.line_start == len(before)
