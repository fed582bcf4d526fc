"""Reading the pictures of a call: beside the event loop, within limits, in turn with others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.embedding import pictures as module
from services.embedding.config import PicturesConfig
from services.embedding.pictures import Picture, PictureReader
from services.embedding.preprocessing import Preprocessing
from services.runtime.errors import DeadlineExceeded, InvalidRequest
from tests.unit.embedding.pictures import picture, png

PREPROCESSING = Preprocessing(
    width=8,
    height=8,
    shortest_edge=8,
    size=None,
    resample=Image.Resampling.BICUBIC,
    scale=(1.0, 1.0, 1.0),
    offset=(0.0, 0.0, 0.0),
)


def some(count: int, *, padding: int = 0, media_type: str = "") -> list[Picture]:
    """`padding` bytes behind each picture make it as large as a chunk of work."""
    data = [png(picture(seed, (20, 16))) + bytes(padding) for seed in range(count)]
    return [Picture(item, media_type, f"images[{n}].data") for n, item in enumerate(data)]


def soon(limit_s: float = 30.0) -> float:
    return time.monotonic() + limit_s


@pytest.fixture
def reader() -> Iterator[PictureReader]:
    made = PictureReader(PREPROCESSING, PicturesConfig(num_threads=2))
    yield made
    made.close()


@pytest.mark.parametrize("padding", [0, 200_000])
async def test_pictures_come_back_in_their_order(reader: PictureReader, padding: int) -> None:
    given = some(9, padding=padding)
    read = await reader.prepare(given, soon())
    for seed, pixels in enumerate(read):
        np.testing.assert_array_equal(pixels, PREPROCESSING.apply(picture(seed, (20, 16))))
    digests = await reader.identify(given, soon())
    assert len(set(digests)) == len(given)
    assert digests == await reader.identify(given, soon())
    digest, pixels = await reader.read(given[3], soon())
    assert digest == digests[3]
    np.testing.assert_array_equal(pixels, read[3])
    assert reader.num_pictures == 0


async def test_nothing_is_decoded_on_the_event_loop(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def noting(name: str) -> Any:
        work = getattr(module, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            threads.add(threading.get_ident())
            return work(*args, **kwargs)

        return run

    for name in ("inspect_picture", "decode_picture"):
        monkeypatch.setattr(module, name, noting(name))
    await reader.identify(some(3), soon())
    await reader.prepare(some(3), soon())
    await reader.read(some(1)[0], soon())
    assert threads
    assert threading.get_ident() not in threads


async def test_a_damaged_picture_is_named_and_the_rest_is_dropped(reader: PictureReader) -> None:
    given = some(5, padding=200_000)
    given[3] = Picture(given[3].data[:300], "", given[3].field)
    await reader.identify(given, soon())  # its header is whole
    with pytest.raises(InvalidRequest) as refused:
        await reader.prepare(given, soon())
    assert refused.value.field == "images[3].data"
    assert reader.num_pictures == 0


class _Held:
    """`decode_picture` that waits until it is let go, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self._begun = threading.Semaphore(0)
        self.fields: list[str] = []
        self._decode = module.decode_picture
        monkeypatch.setattr(module, "decode_picture", self.decode)

    def decode(self, data: bytes, limits: Any, field: str, **options: Any) -> Image.Image:
        self.fields.append(field)
        self._begun.release()
        assert self.go.wait(30)
        return self._decode(data, limits, field, **options)

    async def until(self, count: int) -> None:
        """Returns when so many more were begun."""
        for _ in range(count):
            await asyncio.to_thread(self._begun.acquire)


async def test_a_call_of_one_does_not_wait_behind_a_call_of_many(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(monkeypatch)
    many = asyncio.create_task(reader.prepare(some(12, padding=200_000), soon()))
    await held.until(2)
    single = Picture(some(1)[0].data, "", "single")
    one = asyncio.create_task(reader.prepare([single], soon()))
    await asyncio.sleep(0.01)
    held.go.set()
    await asyncio.gather(one, many)
    assert held.fields.index("single") <= 4  # the two under way, and one more in each thread


async def test_a_call_that_is_cancelled_leaves_the_rest_undone(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(monkeypatch)
    call = asyncio.create_task(reader.prepare(some(12, padding=200_000), soon()))
    await held.until(2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    held.go.set()
    assert reader.num_pictures == 0
    assert len(await reader.prepare(some(2), soon())) == 2
    assert len(held.fields) == 4


async def test_a_call_out_of_time_says_in_which_stage(
    reader: PictureReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(monkeypatch)
    with pytest.raises(DeadlineExceeded) as expired:
        await reader.prepare(some(2), soon(0.02))
    held.go.set()
    assert expired.value.stage == "preprocess"


def test_counts_are_checked_by_name(reader: PictureReader) -> None:
    for count in (0, 257):
        with pytest.raises(InvalidRequest) as refused:
            reader.check_count(count, "images")
        assert refused.value.field == "images"
    reader.check_count(256, "images")
