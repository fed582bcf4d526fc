"""What callers can have the service hold: bounded while they upload, and while they do not read."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest

from services.image.events import Done, Made
from services.image.sources import sent_size
from services.image.types import Finished
from services.runtime.errors import DeadlineExceeded, Overloaded
from tests.fakes.scripted_images import ScriptedSettings
from tests.unit.image.asking import until
from tests.unit.image.serving import edit_wish, made, serving, wish


@contextmanager
def reading_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The threads that read uploads are stuck; the event: one is."""
    is_reached, go_on = threading.Event(), threading.Event()

    def stuck(*args: Any) -> Any:
        is_reached.set()
        assert go_on.wait(20)
        return sent_size(*args)

    monkeypatch.setattr("services.image.wishes.sent_size", stuck)
    try:
        yield is_reached
    finally:
        go_on.set()


async def test_uploads_being_read_take_places_and_hold_up_no_finished_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(ScriptedSettings(max_running=2, max_waiting=8)) as served:
        with reading_blocked(monkeypatch) as is_reached:
            edits = [asyncio.create_task(served.events(edit_wish(n=3))) for _ in range(3)]
            await asyncio.to_thread(is_reached.wait, 5)
            with pytest.raises(Overloaded):
                await served.events(edit_wish(n=2))
            assert len(made(await served.events(wish()))) == 1
        for events in await asyncio.gather(*edits):
            assert len(made(events)) == 3


async def test_upload_given_up_gives_its_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(ScriptedSettings(max_running=1, max_waiting=4)) as served:
        with reading_blocked(monkeypatch) as is_reached:
            edit = asyncio.create_task(served.events(edit_wish(n=5)))
            await asyncio.to_thread(is_reached.wait, 5)
            edit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await edit
            assert len(made(await served.events(wish(n=5)))) == 5


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("ranked", [False, True])
async def test_deadline_takes_everything_from_a_call_whose_reader_has_stopped(ranked: bool) -> None:
    async with serving() as served:
        events = served.make(wish(n=8, rank_by_similarity=ranked), seconds=1.0)
        async for event in events:
            if isinstance(event, Made):
                break
        await until(lambda: num_alive(Made) > 2)
        # But for the one that its reader was given.
        await until(lambda: served.engine.holds == 0 and num_alive(Made) <= 1)
        with pytest.raises(DeadlineExceeded) as caught:
            await anext(events)
        assert caught.value.stage == "deliver"


@pytest.mark.usefixtures("only_new_objects")
async def test_pictures_that_were_taken_are_not_kept() -> None:
    async with serving() as served, aclosing(served.make(wish(n=10))) as events:
        async for event in events:
            if isinstance(event, Done):
                # But for the last. A thread that has just handed one on may hold it for a moment.
                await until(lambda: num_alive(Made) + num_alive(Finished) <= 1)


def num_alive(kind: type) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())
