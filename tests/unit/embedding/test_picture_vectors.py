"""Pictures to vectors: how many may be at it, and what is decoded of a call, and when."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.embedding import pictures as module
from services.embedding.batcher import Batcher
from services.embedding.cache import Vector
from services.embedding.config import PicturesConfig
from services.embedding.encoder import Vectors
from services.embedding.metrics import BatchMetrics, RequestMetrics
from services.embedding.picture_vectors import PictureVectors
from services.embedding.pictures import Picture
from services.embedding.preprocessing import Pixels, Preprocessing
from services.embedding.vectors import Embedded, VectorSource
from services.runtime.errors import InvalidRequest, Overloaded
from services.runtime.metrics import PrometheusRegistry
from services.runtime.work_health import WorkHealth
from tests.unit.embedding.pictures import picture, png


class MeanColour:
    """A `PictureEncoder`: a picture's vector is its mean colour. Waits until it is let go."""

    preprocessing = Preprocessing(
        width=8,
        height=8,
        shortest_edge=8,
        size=None,
        resample=Image.Resampling.BICUBIC,
        scale=(1.0, 1.0, 1.0),
        offset=(0.0, 0.0, 0.0),
    )
    num_tokens = 5
    logit_scale = 100.0

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def embed(self, pictures: Sequence[Pixels]) -> Vectors:
        assert self.go.wait(30)
        means: Vectors = np.stack(pictures).mean(axis=(1, 2), dtype=np.float32)
        return means


class Side:
    """Pictures of one encoder; no cache."""

    def __init__(self, **limits: int) -> None:
        self.encoder = MeanColour()
        config = PicturesConfig(num_threads=1, **limits)
        self._worker = ThreadPoolExecutor(1)
        registry = PrometheusRegistry({"service": "embedding", "model": "mean"})
        batcher: Batcher[Pixels, Vector] = Batcher(
            lambda batch: list(self.encoder.embed(batch)),
            self._worker,
            config.max_tokens_per_batch,
            config.max_waiting_images,
            BatchMetrics(registry).of("image", config.max_waiting_images),
            WorkHealth("a batch", 60.0),
        )
        source = VectorSource(batcher, None)
        self.pictures = PictureVectors(self.encoder, config, source, RequestMetrics(registry))

    async def embed(self, pictures: Sequence[Picture]) -> Embedded:
        return await self.pictures.embed(pictures, time.monotonic() + 30.0)

    async def until_running(self) -> None:
        """Returns when a batch is with the encoder."""
        while not self.pictures.source.num_running:  # noqa: ASYNC110 - another thread's state
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self.encoder.go.set()
        self.pictures.reader.close()
        self._worker.shutdown()


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side(max_images=4, max_waiting_images=6)
    yield made
    made.close()


def some(*seeds: int, padding: int = 0) -> list[Picture]:
    data = [png(picture(seed, (20, 16))) + bytes(padding) for seed in seeds]
    return [Picture(item, "", f"images[{n}].data") for n, item in enumerate(data)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fields of the pictures whose pixels were read, as they are read."""
    fields: list[str] = []
    decode = module.decode_picture

    def noting(data: bytes, limits: Any, field: str, **options: Any) -> Image.Image:
        fields.append(field)
        return decode(data, limits, field, **options)

    monkeypatch.setattr(module, "decode_picture", noting)
    return fields


async def test_vectors_are_in_the_order_of_the_pictures_however_many(side: Side) -> None:
    whole = await side.embed(some(0, 1, 0, 2))
    alone = [(await side.embed(some(seed))).vectors[0] for seed in (0, 1, 0, 2)]
    np.testing.assert_array_equal(whole.vectors, alone)
    assert len({tuple(vector) for vector in alone}) == 3


@pytest.mark.parametrize("seeds", [(4, 5, 6), (0, 1, 2)])
async def test_more_pictures_than_may_be_under_way_are_refused(
    side: Side, seeds: tuple[int, ...]
) -> None:
    # Also those that wait for the same batch as equal ones: each call holds its own pixels.
    side.encoder.go.clear()
    first = asyncio.create_task(side.embed(some(0, 1, 2, 3)))
    await side.until_running()
    with pytest.raises(Overloaded) as refused:
        await side.embed(some(*seeds))
    assert refused.value.retry_after_s
    second = asyncio.create_task(side.embed(some(*seeds[:2])))
    await asyncio.sleep(0)
    side.encoder.go.set()
    assert len((await first).vectors) == 4
    assert len((await second).vectors) == 2
    assert len((await side.embed(some(*seeds))).vectors) == 3


async def test_more_bytes_than_may_be_under_way_are_refused() -> None:
    side = Side(max_image_bytes=300_000, max_waiting_bytes=450_000)
    side.encoder.go.clear()
    first = asyncio.create_task(side.embed(some(0, padding=250_000)))
    await side.until_running()
    with pytest.raises(Overloaded):
        await side.embed(some(1, padding=250_000))
    side.encoder.go.set()
    assert len((await first).vectors) == 1
    # A call that is alone is within its limits, whatever it sends.
    assert len((await side.embed(some(1, 2, padding=250_000))).vectors) == 2
    side.close()


async def test_a_call_that_ends_early_makes_room(side: Side) -> None:
    side.encoder.go.clear()
    cancelled = asyncio.create_task(side.embed(some(0, 1, 2, 3)))
    await side.until_running()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    side.encoder.go.set()
    for _ in range(3):
        with pytest.raises(InvalidRequest):
            await side.embed([*some(0, 1, 2), Picture(b"no", "", "images[3].data")])
    first, second = await asyncio.gather(side.embed(some(0, 1, 2, 3)), side.embed(some(4, 5)))
    assert len(first.vectors) + len(second.vectors) == 6


async def test_nothing_is_decoded_of_a_call_with_something_that_is_no_picture(
    side: Side, decoded: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await side.embed([*some(0, 1, padding=200_000), Picture(b"no", "", "images[2].data")])
    assert refused.value.field == "images[2].data"
    assert decoded == []


async def test_equal_pictures_of_a_call_are_decoded_once(side: Side, decoded: list[str]) -> None:
    found = await side.embed(some(0, 0, 1, 0))
    assert len(found.vectors) == 4
    assert len(decoded) == 2
