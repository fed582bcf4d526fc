"""Texts and token ids to vectors: read within the limits, then from the cache or the batches.

Knows nothing of gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.embedding.batcher import Job
from services.embedding.inputs import Input, InputReader, Purpose
from services.embedding.metrics import RequestMetrics
from services.embedding.tokenization import TokenizedInput
from services.embedding.vectors import Cost, Embedded, VectorSource

__all__ = ["TextVectors"]


class TextVectors:
    """Of one model, for one event loop."""

    def __init__(
        self,
        reader: InputReader,
        source: VectorSource[TokenizedInput],
        metrics: RequestMetrics,
    ) -> None:
        self.reader = reader
        self.source = source
        self._metrics = metrics

    async def embed(
        self,
        inputs: Sequence[Input],
        fields: Sequence[str],
        purpose: Purpose,
        deadline_s: float,
        *,
        truncate: bool | None,
    ) -> Embedded:
        """A vector for each input; `fields` and `truncate` as of `InputReader.read`.

        Raises `OrreryError`.
        """
        read = await self.reader.read(inputs, fields, purpose, truncate=truncate)
        return await self.embed_tokenized(read, deadline_s)

    async def embed_tokenized(self, read: Sequence[TokenizedInput], deadline_s: float) -> Embedded:
        """A vector for each of what `InputReader` read."""
        digests = [item.digest() for item in read]

        async def jobs(positions: list[int]) -> list[Job[TokenizedInput]]:
            return [Job(digests[i], len(read[i].ids), read[i]) for i in positions]

        found = await self.source.get(digests, jobs, deadline_s)
        num_tokens = [len(item.ids) for item in read]
        self._metrics.answered(len(read), sum(num_tokens), found.queue_s)
        by_cache = zip(num_tokens, found.cached, strict=True)
        cost = Cost(
            num_tokens=sum(num_tokens),
            num_cached_tokens=sum(count for count, cached in by_cache if cached),
            queue_s=found.queue_s,
            compute_s=found.compute_s,
        )
        truncated = [item.truncated for item in read]
        return Embedded(found.vectors, num_tokens, truncated, found.cached, cost)
