"""Stop strings against a plain search, however the text is cut into pieces."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.engine.stop_strings import StopStrings

letters = st.text(alphabet="ab", max_size=12)  # two letters: stop strings overlap all the time
stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=4)


def plain_search(text: str, strings: list[str]) -> tuple[int, str] | None:
    """Where the first stop string is complete, and which: the longest that ends there."""
    for end in range(1, len(text) + 1):
        ending = [string for string in strings if text[:end].endswith(string)]
        if ending:
            return end, max(ending, key=len)
    return None


def longest_beginning(text: str, strings: list[str]) -> int:
    """How much of the end of `text` may yet become a stop string."""
    return max(
        n for n in range(len(text) + 1) for s in strings if n < len(s) and text.endswith(s[:n])
    )


@settings(max_examples=500)
@given(pieces=st.lists(letters, max_size=6), strings=stops, include=st.booleans())
def test_text_passes_up_to_the_first_stop_string_however_it_is_cut(
    pieces: list[str], strings: list[str], include: bool
) -> None:
    whole = "".join(pieces)
    first = plain_search(whole, strings)
    subject = StopStrings(strings, include)
    passed, found, seen = "", None, ""
    for piece in pieces:
        seen += piece
        text, found = subject.feed(piece)
        passed += text
        if found is not None:
            break
        # No more and no less than what may become a stop string is held back.
        assert passed == seen[: len(seen) - longest_beginning(seen, strings)]
    if first is None:
        assert found is None
        assert passed + subject.flush() == whole
    else:
        end, string = first
        assert found == string
        assert passed == whole[: end if include else end - len(string)]
        assert subject.flush() == ""


@settings(max_examples=300)
@given(early=letters, late=letters, strings=stops)
def test_a_stop_string_complete_too_early_is_passed_over(
    early: str, late: str, strings: list[str]
) -> None:
    subject = StopStrings(strings, include=True)
    passed, found = subject.feed(early, may_stop=False)
    assert found is None
    more, found = subject.feed(late)
    whole = early + late
    ends = [
        end
        for end in range(len(early) + 1, len(whole) + 1)
        if any(whole[:end].endswith(string) for string in strings)
    ]
    if ends:
        assert found is not None
        assert passed + more == whole[: ends[0]]
    else:
        assert passed + more + subject.flush() == whole


@given(before=letters, a=letters, b=letters, strings=stops)
def test_a_fork_goes_its_own_way(before: str, a: str, b: str, strings: list[str]) -> None:
    trunk = StopStrings(strings, include=False)
    start, found = trunk.feed(before)
    if found is not None:
        return
    fork = trunk.fork()
    ways = {}
    for subject, text in ((trunk, a), (fork, b)):
        passed, found = subject.feed(text)
        ways[subject] = start + passed + ("" if found else subject.flush())
    for subject, text in ((trunk, a), (fork, b)):
        alone = StopStrings(strings, include=False)
        passed, found = alone.feed(before + text)
        assert ways[subject] == passed + ("" if found else alone.flush())


def test_of_stop_strings_that_end_together_the_longest_cuts() -> None:
    assert StopStrings(["END", "THE END"], include=False).feed("It is THE END.") == (
        "It is ",
        "THE END",
    )


def test_the_stop_string_that_is_complete_first_wins_over_one_that_began_first() -> None:
    assert StopStrings(["bcd", "c"], include=False).feed("abcd") == ("ab", "c")
