"""Pictures of a request to what the model reads, in a few threads beside the event loop.

    identify: header and digest, for the cache   ──┐
    prepare:  decode, resize, cut                ──┼── calls take turns, small pictures go together
    read:     both at once, of a single picture  ──┘

Bytes are read as `services.runtime.pictures` reads them, without trusting them; every refusal names
the picture. Knows nothing of models, caching or gRPC.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.embedding.config import PicturesConfig
from services.embedding.gathering import GatheringPool
from services.embedding.preprocessing import Pixels, Preprocessing
from services.runtime.errors import DeadlineExceeded, InvalidRequest
from services.runtime.pictures import PictureLimits, decode_picture, inspect_picture

__all__ = ["Picture", "PictureReader"]

_BYTES_OF_A_TRIP = 128 << 10
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
        num_threads = config.num_threads or min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._pool = GatheringPool(num_threads, _BYTES_OF_A_TRIP, name="pictures")
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
        self._pool.close()

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
        costs = [len(picture.data) for picture in pictures]
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await self._pool.map(work, pictures, costs)
        except TimeoutError:
            raise DeadlineExceeded(
                "the time of the request was up before its pictures were read", stage="preprocess"
            ) from None
        finally:
            self._num_pictures -= len(pictures)
