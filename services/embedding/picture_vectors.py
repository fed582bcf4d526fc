"""Pictures to vectors: identified, then from the cache, or prepared and through the batches.

So many may be at it at a time over all calls: a picture of a hundred bytes is as many pixels for
the model as any other, and a call holds those of all its pictures until it has its vectors. Knows
nothing of gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.embedding.batcher import Job
from services.embedding.config import PicturesConfig
from services.embedding.encoder import PictureEncoder
from services.embedding.metrics import RequestMetrics
from services.embedding.pictures import Picture, PictureReader
from services.embedding.preprocessing import Pixels
from services.embedding.vectors import Cost, Embedded, VectorSource
from services.runtime.errors import InvalidRequest, Overloaded

__all__ = ["PictureVectors", "required"]


class PictureVectors:
    """Of one model, for one event loop."""

    def __init__(
        self,
        encoder: PictureEncoder,
        config: PicturesConfig,
        source: VectorSource[Pixels],
        metrics: RequestMetrics,
    ) -> None:
        self.config = config
        self.reader = PictureReader(encoder.preprocessing, config)
        self.source = source
        self.logit_scale = encoder.logit_scale
        self._num_tokens = encoder.num_tokens
        self._metrics = metrics
        self._num_pictures = 0  # of the calls under way
        self._num_bytes = 0

    async def embed(self, pictures: Sequence[Picture], deadline_s: float) -> Embedded:
        """A vector for each picture. Raises `OrreryError`."""
        with self._admitted(pictures):
            return await self._embed(pictures, deadline_s)

    @contextmanager
    def _admitted(self, pictures: Sequence[Picture]) -> Iterator[None]:
        """Raises `Overloaded`. A call that is alone is always taken: it is within its limits."""
        num_bytes = sum(len(picture.data) for picture in pictures)
        for under_way, added, limit, what in (
            (self._num_pictures, len(pictures), self.config.max_waiting_images, "pictures"),
            (self._num_bytes, num_bytes, self.config.max_waiting_bytes, "bytes of pictures"),
        ):
            if under_way and under_way + added > limit:
                raise Overloaded(
                    f"{under_way} {what} are under way already; at most {limit} may be",
                    retry_after_s=1.0,
                )
        self._num_pictures += len(pictures)
        self._num_bytes += num_bytes
        try:
            yield
        finally:
            self._num_pictures -= len(pictures)
            self._num_bytes -= num_bytes

    async def _embed(self, pictures: Sequence[Picture], deadline_s: float) -> Embedded:
        if len(pictures) == 1 and not self.source.has_cache:  # its pixels will be needed
            digest, only = await self.reader.read(pictures[0], deadline_s)
            digests, pixels = [digest], {digest: only}
        else:
            digests, pixels = await self.reader.identify(pictures, deadline_s), {}

        async def jobs(positions: list[int]) -> list[Job[Pixels]]:
            missing = {digests[i]: pictures[i] for i in positions if digests[i] not in pixels}
            if missing:
                prepared = await self.reader.prepare(list(missing.values()), deadline_s)
                pixels.update(zip(missing, prepared, strict=True))
            return [Job(digests[i], self._num_tokens, pixels[digests[i]]) for i in positions]

        found = await self.source.get(digests, jobs, deadline_s)
        self._metrics.answered(len(pictures), 0, found.queue_s)
        return Embedded(
            vectors=found.vectors,
            num_tokens=[0] * len(pictures),
            truncated=[False] * len(pictures),
            cached=found.cached,
            cost=Cost(0, 0, found.queue_s, found.compute_s),
        )


def required(pictures: PictureVectors | None, model_name: str, field: str) -> PictureVectors:
    """Raises `InvalidRequest` naming `field` where the model embeds texts alone."""
    if pictures is None:
        raise InvalidRequest(
            f"{field}: {model_name!r} embeds texts alone; expected a model of texts and pictures "
            "(CLIP)",
            field=field,
        )
    return pictures
