"""The work of the service: vectors of texts and of pictures, and passages scored against a query.

Puts together what reads the inputs, the cache, the batches and the models; what takes texts and
pictures at once is in `cross_modal.py`. Knows nothing of gRPC, protobuf or Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.embedding.batcher import Batcher, Job
from services.embedding.cache import EmbeddingCache, Vector, cache_prefix
from services.embedding.config import EmbeddingConfig, PicturesConfig
from services.embedding.cross_encoder import TokenizedPair
from services.embedding.cross_modal import CrossModal
from services.embedding.encoder import Encoder, PictureEncoder, unit_length
from services.embedding.inputs import Input, InputReader, Purpose, TextInput
from services.embedding.loading import Models
from services.embedding.metrics import BatchMetrics, CacheMetrics, RequestMetrics
from services.embedding.picture_vectors import PictureVectors, required
from services.embedding.pictures import Picture
from services.embedding.preprocessing import Pixels
from services.embedding.text_vectors import TextVectors
from services.embedding.tokenization import TokenizedInput
from services.embedding.vectors import Cost, Embedded, VectorSource
from services.runtime import store
from services.runtime.errors import InvalidRequest
from services.runtime.metrics import MetricsRegistry
from services.runtime.offload import offload_if_large
from services.runtime.work_health import WorkHealth

__all__ = ["EmbeddingService", "Load", "Scored"]


@dataclass(frozen=True, slots=True)
class Scored:
    """One score for each passage, in the order of the passages."""

    scores: list[float]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Load:
    """What the service is doing right now."""

    num_waiting_inputs: int
    num_running_inputs: int
    num_inputs_done: int
    num_tokens_done: int
    cache_hits: int
    cache_misses: int
    cache_available: bool


class EmbeddingService:
    """One application's work, for one event loop. The models stay its maker's to close."""

    def __init__(
        self,
        config: EmbeddingConfig,
        models: Models,
        registry: MetricsRegistry,
        redis_url: str | None,
    ) -> None:
        self._config = config
        self._models = models
        self._batch_metrics = BatchMetrics(registry)
        self._cache_metrics = CacheMetrics(registry)
        self._metrics = RequestMetrics(registry)
        self._metrics.computes_in(models.encoder.dtype)
        self._cache = self._connect(redis_url)
        self._texts = self._text_vectors()
        pictures = models.encoder.pictures
        self._pictures = None if pictures is None else self._picture_vectors(pictures)
        self.cross_modal = CrossModal(config.model_name, self._texts, self._pictures)
        self._scoring: Batcher[TokenizedPair, float] = Batcher(
            self._score_batch,
            models.worker,
            config.batching.max_tokens_per_batch,
            config.batching.max_waiting_inputs,
            self._batch_metrics.of("rerank", config.batching.max_waiting_inputs),
            WorkHealth("a batch of passages", config.stuck_after_s),
        )

    @property
    def encoder(self) -> Encoder:
        return self._models.encoder

    @property
    def max_inputs(self) -> int:
        """Texts of one call."""
        return self._texts.reader.max_inputs

    @property
    def has_cross_encoder(self) -> bool:
        return self._models.scorer is not None

    @property
    def pictures_config(self) -> PicturesConfig | None:
        """None where the model embeds texts alone."""
        return None if self._pictures is None else self._pictures.config

    @property
    def failure(self) -> str | None:
        """Why this replica has to be replaced; None = it has not."""
        pictures = None if self._pictures is None else self._pictures.source.failure
        return self._texts.source.failure or pictures or self._scoring.failure

    async def embed(
        self, inputs: Sequence[Input], purpose: Purpose, deadline_s: float, *, truncate: bool
    ) -> Embedded:
        """A vector of all the model's dimensions for each input. Raises `OrreryError`."""
        self._texts.reader.check_count(len(inputs), "inputs")
        fields = [f"inputs[{position}]" for position in range(len(inputs))]
        return await self._texts.embed(inputs, fields, purpose, deadline_s, truncate=truncate)

    async def embed_pictures(self, pictures: Sequence[Picture], deadline_s: float) -> Embedded:
        """As `embed`, for pictures."""
        side = required(self._pictures, self._config.model_name, "images")
        side.reader.check_count(len(pictures), "images")
        return await side.embed(pictures, deadline_s)

    async def score_by_vectors(
        self, query: str, passages: Sequence[str], deadline_s: float
    ) -> Scored:
        """Cosines of the query's vector and the passages'; long texts are cut."""
        fields = self._check_passages(passages)
        reader = self._texts.reader
        read = await reader.read([TextInput(query)], ["query"], Purpose.QUERY, truncate=True)
        texts = [TextInput(passage) for passage in passages]
        read += await reader.read(texts, fields, Purpose.PASSAGE, truncate=True)
        embedded = await self._texts.embed_tokenized(read, deadline_s)
        vectors = unit_length(np.stack(embedded.vectors))
        return Scored((vectors[1:] @ vectors[0]).tolist(), embedded.cost)

    async def score_by_cross_encoder(
        self, query: str, passages: Sequence[str], deadline_s: float
    ) -> Scored:
        """The cross-encoder's own scores. Raises `InvalidRequest` where there is none."""
        scorer = self._models.scorer
        if scorer is None:
            raise InvalidRequest(
                "method: this application has no cross-encoder; expected BI_ENCODER", field="method"
            )
        reader = self._texts.reader
        for passage, field in zip(passages, self._check_passages(passages), strict=True):
            reader.check_text(passage, field)
        reader.check_text(query, "query")
        num_chars = reader.check_pairs(query, passages)
        pairs = await offload_if_large(num_chars, lambda: scorer.tokenize(query, passages))
        jobs = [Job(pair.digest(), len(pair.ids), pair) for pair in pairs]
        answers = await self._scoring.run(jobs, deadline_s)
        num_tokens = sum(len(pair.ids) for pair in pairs)
        self._metrics.answered(len(pairs), num_tokens, answers.queue_s)
        return Scored(answers.results, Cost(num_tokens, 0, answers.queue_s, answers.compute_s))

    def load(self) -> Load:
        """What it is doing right now."""
        waiting = self._texts.source.num_waiting + self._scoring.num_waiting
        running = self._texts.source.num_running + self._scoring.num_running
        if self._pictures is not None:
            waiting += self._pictures.reader.num_pictures + self._pictures.source.num_waiting
            running += self._pictures.source.num_running
        return Load(
            num_waiting_inputs=waiting,
            num_running_inputs=running,
            num_inputs_done=self._metrics.num_inputs,
            num_tokens_done=self._metrics.num_tokens,
            cache_hits=self._cache_metrics.num_hits,
            cache_misses=self._cache_metrics.num_misses,
            cache_available=self._cache is not None and self._cache.available,
        )

    async def close(self) -> None:
        """Refuses what waits, lets the batch under way finish, closes connections."""
        await self._texts.source.close()
        if self._pictures is not None:
            self._pictures.reader.close()
            await self._pictures.source.close()
        await self._scoring.close()
        if self._cache is not None:
            await self._cache.close()

    # --- the parts ----------------------------------------------------------------------------

    def _text_vectors(self) -> TextVectors:
        batching = self._config.batching
        batcher: Batcher[TokenizedInput, Vector] = Batcher(
            lambda batch: list(self.encoder.embed(batch)),
            self._models.worker,
            batching.max_tokens_per_batch,
            batching.max_waiting_inputs,
            self._batch_metrics.of("embed", batching.max_waiting_inputs),
            WorkHealth("a batch of texts", self._config.stuck_after_s),
        )
        reader = InputReader(self.encoder, self._config.limits)
        return TextVectors(reader, VectorSource(batcher, self._cache), self._metrics)

    def _picture_vectors(self, encoder: PictureEncoder) -> PictureVectors:
        config = self._config.pictures or PicturesConfig()
        batcher: Batcher[Pixels, Vector] = Batcher(
            lambda batch: list(encoder.embed(batch)),
            self._models.worker,
            config.max_tokens_per_batch,
            config.max_waiting_images,
            self._batch_metrics.of("image", config.max_waiting_images),
            WorkHealth("a batch of pictures", self._config.stuck_after_s),
        )
        return PictureVectors(encoder, config, VectorSource(batcher, self._cache), self._metrics)

    def _connect(self, redis_url: str | None) -> EmbeddingCache | None:
        if redis_url is None or not self._config.cache.enabled:
            return None
        encoder = self.encoder
        return EmbeddingCache(
            store.connect(redis_url),
            cache_prefix(encoder.weight_hash, encoder.dtype, normalized=encoder.normalized),
            encoder.dimensions,
            self._config.cache,
            self._cache_metrics,
        )

    def _check_passages(self, passages: Sequence[str]) -> list[str]:
        """Names of the passages in errors."""
        self._texts.reader.check_count(len(passages), "passages")
        return [f"passages[{position}]" for position in range(len(passages))]

    def _score_batch(self, batch: Sequence[TokenizedPair]) -> list[float]:
        assert self._models.scorer is not None
        scores: list[float] = self._models.scorer.score(batch).tolist()
        return scores
