"""Lists: all pages of a service's, and one page as OpenAI's API cuts it.

Knows nothing of what is listed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.runtime.errors import InvalidRequest

__all__ = ["PAGE_SIZE", "Cursor", "all_pages", "cursor_page", "list_document"]

# The most that a service sends at once.
PAGE_SIZE = 1000

ItemT = TypeVar("ItemT")


async def all_pages(
    fetch: Callable[[str], Awaitable[tuple[Sequence[ItemT], str]]],
) -> list[ItemT]:
    """Everything. `fetch` gives the page of a token, and the token of the next one."""
    items: list[ItemT] = []
    token = ""
    while True:
        page, token = await fetch(token)
        items.extend(page)
        if not token:
            return items


@dataclass(frozen=True, slots=True)
class Cursor:
    """Which page: at most `limit` entries after or before the one of an id."""

    after: str | None = None
    before: str | None = None
    limit: int = 20
    order: str = "desc"


def cursor_page(
    newest_first: Sequence[ItemT],
    cursor: Cursor,
    id_of: Callable[[ItemT], str],
    place_of_missing: Callable[[str], int | None] = lambda _: None,
) -> tuple[list[ItemT], bool]:
    """One page, and whether there are more beyond it.

    `place_of_missing` says where in `newest_first` an entry that is gone has stood, if that can be
    known: who deletes while listing names entries that are gone. Raises `InvalidRequest` otherwise.
    """
    ids = [id_of(item) for item in newest_first]

    def place(name: str, wanted: str) -> tuple[int, int]:
        """The entries before it and those after it, as bounds."""
        if wanted in ids:
            return ids.index(wanted), ids.index(wanted) + 1
        at = place_of_missing(wanted)
        if at is None:
            raise InvalidRequest(f"{name}: there is no {wanted[:128]!r} in this list", field=name)
        return at, at

    start, stop = 0, len(ids)
    ascending = cursor.order == "asc"
    if cursor.after is not None:
        first, last = place("after", cursor.after)
        start, stop = (start, first) if ascending else (last, stop)
    if cursor.before is not None:
        first, last = place("before", cursor.before)
        start, stop = (max(start, last), stop) if ascending else (start, min(stop, first))
    items = list(newest_first[start:stop])
    if ascending:
        items.reverse()
    has_more = len(items) > cursor.limit
    if cursor.before is not None and cursor.after is None:
        return items[-cursor.limit :], has_more  # the nearest ones
    return items[: cursor.limit], has_more


def list_document(documents: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page as OpenAI's API writes it."""
    return {
        "object": "list",
        "data": documents,
        "first_id": documents[0]["id"] if documents else None,
        "last_id": documents[-1]["id"] if documents else None,
        "has_more": has_more,
    }
