"""Page tokens come back as what they were made of; anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieval import pages
from services.runtime.errors import InvalidRequest

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_name_comes_back(name: str) -> None:
    assert pages.read_name(pages.token_of_name(name)) == name


@given(st.integers(0, 2**52), TEXTS)
def test_time_and_name_come_back(at_ms: int, name: str) -> None:
    assert pages.read_time(pages.token_of_time(at_ms, name)) == (at_ms, name)


def test_no_token_is_the_first_page() -> None:
    assert pages.read_name("") == ""
    assert pages.read_time("") is None


@pytest.mark.parametrize("token", ["%", "a", "====", "ä", pages.token_of_name("no time")])
def test_other_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pages.read_time(token)
    assert caught.value.field == "page_token"


@given(TEXTS)
def test_any_token_is_read_or_refused(token: str) -> None:
    for read in (pages.read_name, pages.read_time):
        try:
            read(token)
        except InvalidRequest as error:
            assert error.field == "page_token"  # noqa: PT017 - both outcomes are right


def test_page_size_has_a_default_and_a_limit() -> None:
    assert pages.page_limit(None, 1000) == 100
    assert pages.page_limit(None, 50) == 50
    assert pages.page_limit(1000, 1000) == 1000
    for size in (0, 1001):
        with pytest.raises(InvalidRequest):
            pages.page_limit(size, 1000)
