"""Pictures of a request to what the model reads, in a few threads beside the event loop.

    identify: header and digest, for the cache   ──┐   a call has at most as many chunks in the
    prepare:  decode, resize, cut                ──┼── pool as it has threads, so that a call with
    read:     both at once, of a single picture  ──┘   one picture does not wait behind hundreds

Bytes are read as `services.runtime.pictures` reads them, without trusting them; every refusal names
the picture. Knows nothing of models, caching or gRPC.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from services.embedding.config import PicturesConfig
from services.embedding.preprocessing import Pixels, Preprocessing
from services.embedding.together import together
from services.runtime.errors import DeadlineExceeded, InvalidRequest
from services.runtime.pictures import PictureLimits, decode_picture, inspect_picture

__all__ = ["Picture", "PictureReader"]

# Small pictures go to a thread together: handing over costs more than they do.
_CHUNK_BYTES = 128 << 10
_MAX_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it came; `field` is the name of its bytes in errors."""

    data: bytes
    media_type: str
    field: str


class PictureReader:
    """Reads pictures for one model. Used from one event loop."""

    def __init__(self, preprocessing: Preprocessing, config: PicturesConfig) -> None:
        self._preprocessing = preprocessing
        self._config = config
        self._limits = PictureLimits(config.max_image_bytes, config.max_image_pixels)
        self._salt = preprocessing.digest()
        self._num_threads = config.num_threads or min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="pictures")
        self._num_pictures = 0

    @property
    def num_pictures(self) -> int:
        """Being read, or about to be."""
        return self._num_pictures

    def check_count(self, count: int, field: str) -> None:
        """Raises `InvalidRequest`."""
        if not 1 <= count <= self._config.max_images:
            raise InvalidRequest(
                f"{field}: expected 1 to {self._config.max_images} pictures in a call, got {count}",
                field=field,
            )

    async def identify(self, pictures: Sequence[Picture], deadline_s: float) -> list[bytes]:
        """A digest of each, 16 bytes: equal for pictures that the model sees as the same bytes.

        Reads the headers: what is no picture, is called by the wrong type or is too large is
        refused here, before any pixel is decoded. Raises as `prepare`.
        """
        return await self._each(self._identify, pictures, deadline_s)

    async def prepare(self, pictures: Sequence[Picture], deadline_s: float) -> list[Pixels]:
        """What the model reads of each.

        Raises:
            InvalidRequest: One is damaged or larger than allowed.
            DeadlineExceeded: Time was up before all were read.
        """
        return await self._each(self._prepare, pictures, deadline_s)

    async def read(self, picture: Picture, deadline_s: float) -> tuple[bytes, Pixels]:
        """What `identify` and `prepare` give of one, by one way to the threads and back.

        Raises as `prepare`.
        """
        (read,) = await self._each(self._read, [picture], deadline_s)
        return read

    def close(self) -> None:
        """Ends the threads once they are idle."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _identify(self, picture: Picture) -> bytes:
        inspect_picture(picture.data, self._limits, picture.field, media_type=picture.media_type)
        return self._digest(picture)

    def _digest(self, picture: Picture) -> bytes:
        return hashlib.blake2b(picture.data, digest_size=16, key=self._salt).digest()

    def _read(self, picture: Picture) -> tuple[bytes, Pixels]:
        return self._digest(picture), self._prepare(picture)

    def _prepare(self, picture: Picture) -> Pixels:
        decoded = decode_picture(
            picture.data, self._limits, picture.field, media_type=picture.media_type
        )
        return self._preprocessing.apply(decoded)

    async def _each(
        self, work: Callable[[Picture], T], pictures: Sequence[Picture], deadline_s: float
    ) -> list[T]:
        """`work` on each, in the order of the pictures."""
        self._num_pictures += len(pictures)
        chunks = _chunks(pictures)
        left = iter(enumerate(chunks))
        done: dict[int, list[T]] = {}
        loop = asyncio.get_running_loop()

        async def work_off() -> None:
            for number, chunk in left:  # shared: each takes the next one
                run = partial(_all_of, work, chunk)
                done[number] = await loop.run_in_executor(self._pool, run)

        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                await together(*(work_off() for _ in range(min(self._num_threads, len(chunks)))))
        except TimeoutError:
            raise DeadlineExceeded(
                "the time of the request was up before its pictures were read", stage="preprocess"
            ) from None
        finally:
            self._num_pictures -= len(pictures)
        return [result for number in sorted(done) for result in done[number]]


def _all_of(work: Callable[[Picture], T], pictures: Sequence[Picture]) -> list[T]:
    return [work(picture) for picture in pictures]


def _chunks(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Consecutive pictures: small ones together, large ones alone."""
    chunks: list[list[Picture]] = []
    room = 0
    for picture in pictures:
        if not chunks or len(picture.data) > room:
            chunks.append([])
            room = _CHUNK_BYTES
        chunks[-1].append(picture)
        room -= len(picture.data)
    return chunks
