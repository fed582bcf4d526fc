"""Adding up the log: the same state however the entries are cut into batches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.log.entries import (
    Change,
    CollectionCreated,
    CollectionDeleted,
    CollectionUpdated,
    DocumentPut,
    DocumentsRemoved,
    Encoded,
    Kind,
    LogEntry,
    UnreadableEntry,
    encode,
)
from services.retrieval.log.position import Position
from services.retrieval.log.state import LogState
from tests.fakes.replicas import config, contents, document

IDS = tuple(f"{number:032x}" for number in range(3))


def entry(number: int, collection: int, change: Change) -> LogEntry:
    return LogEntry(
        Position(1000 + number, 0), Position(999 + number, 0), IDS[collection], encode(change)
    )


def created(collection: int) -> Change:
    return CollectionCreated(f"name {collection}", "", config(), {})


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "remove", "update", "toggle"]),
        st.integers(0, 2),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=40,
)


def log_of(asked: Sequence[tuple[str, int, int, int]]) -> list[LogEntry]:
    """A log that is true: only of collections that there are."""
    log: list[LogEntry] = []
    living: set[int] = set()
    for what, collection, key, num_chunks in asked:
        number = len(log)
        change: Change
        if what == "toggle" or collection not in living:
            change = CollectionDeleted() if collection in living else created(collection)
            living ^= {collection}
        elif what == "put":
            change = DocumentPut(document(f"d{key}", number, num_chunks))
        elif what == "remove":
            change = DocumentsRemoved((f"d{key}", "missing"))
        else:
            change = CollectionUpdated(f"title {number}", None if key % 2 else {"n": str(number)})
        log.append(entry(number, collection, change))
    return log


def held(state: LogState) -> object:
    return [
        (
            *(view.id, view.name, view.title, dict(view.metadata)),
            *(view.created_at_ms, view.last_write_at_ms, contents(view)),
        )
        for view in state.directory.by_name.values()
    ]


@settings(deadline=None)
@given(steps, st.lists(st.integers(1, 7), min_size=1, max_size=40))
def test_any_batches_give_the_same_state(
    asked: list[tuple[str, int, int, int]], sizes: list[int]
) -> None:
    log = log_of(asked)
    one_by_one, batched = LogState(), LogState()
    for each in log:
        one_by_one.apply([each])
    left, turn = list(log), 0
    while left:
        size = sizes[turn % len(sizes)]
        batched.apply(left[:size])
        left, turn = left[size:], turn + 1
    assert held(one_by_one) == held(batched)
    assert one_by_one.position == batched.position


def test_an_unreadable_entry_leaves_the_state_as_it_was() -> None:
    state = LogState()
    state.apply([entry(0, 0, created(0)), entry(1, 0, DocumentPut(document("a", 1)))])
    before = held(state), state.position
    good = entry(2, 0, DocumentPut(document("b", 2)))
    for bad in (
        LogEntry(Position(2000, 0), good.position, IDS[0], Encoded(Kind.PUT, b"{}")),
        entry(3, 1, DocumentPut(document("c", 3))),  # of no collection
        entry(3, 0, DocumentPut(document("c", 3, dimensions=9))),
        LogEntry(Position(2000, 0), good.position, "../../etc", encode(created(1))),
    ):
        with pytest.raises(UnreadableEntry, match=str(bad.position)):
            state.apply([good, bad])
        assert (held(state), state.position) == before


def test_a_frozen_state_does_not_change() -> None:
    state = LogState()
    state.apply([entry(0, 0, created(0)), entry(1, 0, DocumentPut(document("a", 1)))])
    frozen = state.freeze()
    state.apply([entry(2, 0, DocumentPut(document("b", 2))), entry(3, 1, created(1))])
    (kept,) = frozen.collections
    assert kept.generation.document_ids(limit=9) == ["a"]
    assert frozen.position == Position(1001, 0)
