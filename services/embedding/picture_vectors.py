"""Pictures to vectors: identified, then from the cache, or prepared and through the batches.

Knows nothing of gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.embedding.batcher import Job
from services.embedding.config import PicturesConfig
from services.embedding.encoder import PictureEncoder
from services.embedding.metrics import RequestMetrics
from services.embedding.pictures import Picture, PictureReader
from services.embedding.preprocessing import Pixels
from services.embedding.vectors import Cost, Embedded, VectorSource
from services.runtime.errors import InvalidRequest

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

    async def embed(self, pictures: Sequence[Picture], deadline_s: float) -> Embedded:
        """A vector for each picture. Raises `OrreryError`."""
        pixels: dict[bytes, Pixels] = {}
        if self.source.has_cache:
            digests = await self.reader.identify(pictures, deadline_s)
        else:  # every picture will be needed: one way to the threads and back instead of two
            read = await self.reader.read(pictures, deadline_s)
            digests = [digest for digest, _ in read]
            pixels.update(read)

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
