from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import Stemmer

from services.retrieval.index.text import Analyzer, chunk_search_text, supported_languages
from services.retrieval.types import Chunk
from tests.unit.retrieval.index.reference import document


@pytest.mark.parametrize(
    ("title", "path", "expected"),
    [
        ("", (), "text"),
        ("Book", (), "Book\ntext"),
        ("Book", ("Part", "Chapter"), "Part > Chapter\ntext"),
    ],
)
def test_search_text_has_headings_or_title_before_the_text(
    title: str, path: tuple[str, ...], expected: str
) -> None:
    info = replace(document("a").info, title=title)
    assert chunk_search_text(Chunk("text", 0, 4, title_path=path), info) == expected


def test_every_supported_language_analyzes() -> None:
    for language in supported_languages():
        assert len(Analyzer(language).terms("Mountains 2026")) == 2


def test_languages_are_the_stemmers_and_none() -> None:
    assert set(supported_languages()) <= {"none", *Stemmer.algorithms()}
    assert {"none", "english", "german", "russian"} <= set(supported_languages())
    assert list(supported_languages()) == sorted(supported_languages())


def test_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'klingon' is none of arabic"):
        Analyzer("klingon")


def test_english_drops_stop_words_and_stems() -> None:
    text = "The houses of THE Housing, a 2nd x"
    assert list(Analyzer("english").terms(text)) == ["hous", "hous", "2nd"]


def test_none_keeps_words_as_they_are() -> None:
    assert list(Analyzer("none").terms("The Houses of x")) == ["the", "houses", "of"]


def test_german_has_its_own_stop_words_and_stems() -> None:
    assert list(Analyzer("german").terms("Die Häuser und die Berge")) == ["haus", "berg"]


def test_analyzer_is_shared_by_threads() -> None:
    analyzer = Analyzer("english")
    text = " ".join(f"walking{number} running houses" for number in range(300))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: list(analyzer.terms(text)), range(40)))
    assert all(terms == found[0] for terms in found)
