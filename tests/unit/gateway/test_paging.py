"""Lists: pages of the services', pages as OpenAI's API cuts them, ids of batches, many calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.batches import FileBatch
from services.gateway.concurrency import map_bounded
from services.gateway.consistency import newest
from services.gateway.paging import Cursor, all_pages, cursor_page
from services.runtime.errors import InvalidRequest, ResourceNotFound

NEWEST_FIRST = [f"i{n}" for n in range(9, -1, -1)]
FILE_IDS = [f"file-{number:024x}" for number in (0, 1, 2**96 - 1)]


def page(newest_first: Sequence[str], cursor: Cursor) -> tuple[list[str], bool]:
    return cursor_page(newest_first, cursor, str)


@given(num_items=st.integers(0, 12), limit=st.integers(1, 5), ascending=st.booleans())
def test_pages_after_each_other_are_the_whole_list(
    num_items: int, limit: int, ascending: bool
) -> None:
    newest_first = NEWEST_FIRST[:num_items]
    order = "asc" if ascending else "desc"
    found: list[str] = []
    more, after = True, None
    while more:
        items, more = page(newest_first, Cursor(after=after, limit=limit, order=order))
        assert len(items) == limit if more else len(items) <= limit
        found += items
        after = items[-1] if items else None
    assert found == (newest_first[::-1] if ascending else newest_first)


@given(
    first=st.integers(0, 9), second=st.integers(0, 9), limit=st.integers(1, 5), asc=st.booleans()
)
def test_page_lies_between_its_bounds(first: int, second: int, limit: int, asc: bool) -> None:
    items = NEWEST_FIRST[::-1] if asc else NEWEST_FIRST
    order = "asc" if asc else "desc"
    after, before = items[first], items[second]
    between = items[first + 1 : second]
    assert page(NEWEST_FIRST, Cursor(after, before, limit, order)) == (
        between[:limit],
        len(between) > limit,
    )
    earlier = items[:second]
    found, more = page(NEWEST_FIRST, Cursor(None, before, limit, order))
    assert (found, more) == (earlier[-limit:], second > limit)


def test_unknown_cursor_is_refused_unless_its_place_is_known() -> None:
    with pytest.raises(InvalidRequest) as error:
        page(NEWEST_FIRST, Cursor(after="gone"))
    assert error.value.field == "after"
    items, _ = cursor_page(NEWEST_FIRST, Cursor(after="gone"), str, lambda _: 4)
    assert items == NEWEST_FIRST[4:]
    items, _ = cursor_page(NEWEST_FIRST, Cursor(after="gone", order="asc"), str, lambda _: 4)
    assert items == NEWEST_FIRST[:4][::-1]


async def test_all_pages_are_fetched() -> None:
    pages = {"": ([1, 2], "a"), "a": ([], "b"), "b": ([3], "")}

    async def fetch(token: str) -> tuple[list[int], str]:
        return pages[token]

    assert await all_pages(fetch) == [1, 2, 3]


@pytest.mark.parametrize("file_ids", [FILE_IDS, FILE_IDS[:1], FILE_IDS[:1] * 256])
def test_batch_id_says_what_the_batch_is(file_ids: list[str]) -> None:
    batch = FileBatch("vs_1", 1_800_000_000, file_ids)
    assert FileBatch.parse("vs_1", batch.id) == batch
    assert len(batch.id) < 8192  # fits into a request line
    assert all(character.isalnum() or character in "-_" for character in batch.id)


@given(at=st.integers(0, 60), character=st.characters(min_codepoint=33, max_codepoint=126))
def test_batch_id_that_was_never_given_out_is_not_found(at: int, character: str) -> None:
    batch_id = FileBatch("vs_1", 1_800_000_000, FILE_IDS).id
    forged = batch_id[:at] + character + batch_id[at + 1 :]
    if forged == batch_id:
        return
    with pytest.raises(ResourceNotFound):
        FileBatch.parse("vs_1", forged)


@pytest.mark.parametrize("batch_id", ["", "vsfb_", "vsfb_AAAA", "vsfb_é", "batch_1"])
def test_wrong_batch_ids_are_not_found(batch_id: str) -> None:
    with pytest.raises(ResourceNotFound):
        FileBatch.parse("vs_1", batch_id)
    with pytest.raises(ResourceNotFound):
        FileBatch.parse("vs_2", FileBatch("vs_1", 1, FILE_IDS).id)


def test_newest_token_is_by_number_and_not_by_letters() -> None:
    assert newest(["99-0", "100-2", "100-10", ""]) == "100-10"
    assert newest([]) == newest(["", ""]) == ""


async def test_bounded_calls_keep_their_order_and_number() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return -number

    assert await map_bounded(work, range(50)) == [-number for number in range(50)]
    assert 1 < most <= 8


async def test_first_failure_cancels_the_other_calls() -> None:
    running: set[int] = set()
    begun: set[int] = set()

    async def work(number: int) -> None:
        running.add(number)
        begun.add(number)
        try:
            if number == 3:
                raise ZeroDivisionError
            await asyncio.sleep(60)
        finally:
            running.discard(number)

    with pytest.raises(ZeroDivisionError):
        await map_bounded(work, range(100))
    assert not running
    assert len(begun) < 100
