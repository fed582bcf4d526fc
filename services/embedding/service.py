"""The work of the service: texts to vectors and passages to scores, over one worker thread.

Puts together what reads the inputs, the cache, the batches and the models. Knows nothing of gRPC,
protobuf or Ray.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import transformers

from services.embedding.batcher import Batcher, Job
from services.embedding.cache import EmbeddingCache, Vector, cache_prefix
from services.embedding.config import EmbeddingConfig
from services.embedding.cross_encoder import PairScorer, ScorerOptions, TokenizedPair
from services.embedding.inputs import Input, InputReader, Purpose, TextInput
from services.embedding.metrics import BatchMetrics, CacheMetrics, RequestMetrics
from services.embedding.model import EncoderOptions, TextEncoder, unit_length
from services.embedding.tokenization import TokenizedInput
from services.runtime import store
from services.runtime.errors import InvalidRequest
from services.runtime.metrics import MetricsRegistry
from services.runtime.offload import offload_if_large

__all__ = ["Embedded", "EmbeddingService", "Load", "Models", "Scored", "load_models"]


@dataclass(frozen=True, slots=True)
class Models:
    """What was loaded, and the one thread that may run it."""

    encoder: TextEncoder
    scorer: PairScorer | None
    worker: ThreadPoolExecutor

    def close(self) -> None:
        """Ends the thread once it is idle."""
        self.worker.shutdown(wait=False)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One call's vectors, and what they took. The lists have an entry for each input."""

    vectors: list[Vector]
    inputs: list[TokenizedInput]
    cached: list[bool]
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Scored:
    """One score for each passage, in the order of the passages."""

    scores: list[float]
    num_tokens: int
    num_cached_tokens: int
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What the service is doing right now."""

    num_waiting_inputs: int
    num_running_inputs: int
    cache_hits: int
    cache_misses: int
    cache_available: bool


async def load_models(config: EmbeddingConfig, folder: str, scorer_folder: str | None) -> Models:
    """Loads in the worker thread, so that the event loop goes on. Raises `ModelFolderError`."""
    num_threads = config.num_threads or len(os.sched_getaffinity(0))
    worker = ThreadPoolExecutor(
        max_workers=1,
        thread_name_prefix="embedding",
        initializer=partial(torch.set_num_threads, num_threads),
    )

    def load() -> tuple[TextEncoder, PairScorer | None]:
        transformers.utils.logging.disable_progress_bar()
        encoder = TextEncoder.load(folder, _encoder_options(config))
        if config.reranker is None or scorer_folder is None:
            return encoder, None
        return encoder, PairScorer.load(scorer_folder, _scorer_options(config))

    try:
        encoder, scorer = await asyncio.get_running_loop().run_in_executor(worker, load)
    except BaseException:
        worker.shutdown(wait=False, cancel_futures=True)
        raise
    return Models(encoder, scorer, worker)


class EmbeddingService:
    """Embeds and reranks for one event loop. The models stay its maker's to close."""

    def __init__(
        self,
        config: EmbeddingConfig,
        models: Models,
        registry: MetricsRegistry,
        redis_url: str | None,
    ) -> None:
        self._models = models
        self._reader = InputReader(models.encoder, config.limits)
        batch_metrics = BatchMetrics(registry)
        self._embedding: Batcher[TokenizedInput, Vector] = Batcher(
            self._embed_batch,
            models.worker,
            config.batching.max_tokens_per_batch,
            config.batching.max_waiting_inputs,
            batch_metrics.of("embed"),
        )
        self._scoring: Batcher[TokenizedPair, float] = Batcher(
            self._score_batch,
            models.worker,
            config.batching.max_tokens_per_batch,
            config.batching.max_waiting_inputs,
            batch_metrics.of("rerank"),
        )
        self._cache_metrics = CacheMetrics(registry)
        self._cache = self._connect(config, redis_url)
        self._metrics = RequestMetrics(registry)
        self._metrics.computes_in(models.encoder.dtype)

    @property
    def encoder(self) -> TextEncoder:
        return self._models.encoder

    @property
    def has_cross_encoder(self) -> bool:
        return self._models.scorer is not None

    @property
    def healthy(self) -> bool:
        return self._embedding.healthy and self._scoring.healthy

    async def embed(
        self, inputs: Sequence[Input], purpose: Purpose, deadline_s: float, *, truncate: bool
    ) -> Embedded:
        """A vector of all the model's dimensions for each input. Raises `OrreryError`."""
        self._reader.check_count(len(inputs), "inputs")
        fields = [f"inputs[{position}]" for position in range(len(inputs))]
        read = await self._reader.read(inputs, fields, purpose, truncate=truncate)
        return await self._vectors(read, deadline_s)

    async def score_by_vectors(
        self, query: str, passages: Sequence[str], deadline_s: float
    ) -> Scored:
        """Cosines of the query's vector and the passages'; long texts are cut."""
        fields = self._check_passages(passages)
        read = await self._reader.read([TextInput(query)], ["query"], Purpose.QUERY, truncate=True)
        texts = [TextInput(passage) for passage in passages]
        read += await self._reader.read(texts, fields, Purpose.PASSAGE, truncate=True)
        embedded = await self._vectors(read, deadline_s)
        vectors = unit_length(np.stack(embedded.vectors))
        lengths = [len(item.ids) for item in read]
        return Scored(
            scores=(vectors[1:] @ vectors[0]).tolist(),
            num_tokens=sum(lengths),
            num_cached_tokens=sum(
                length for length, cached in zip(lengths, embedded.cached, strict=True) if cached
            ),
            queue_s=embedded.queue_s,
            compute_s=embedded.compute_s,
        )

    async def score_by_cross_encoder(
        self, query: str, passages: Sequence[str], deadline_s: float
    ) -> Scored:
        """The cross-encoder's own scores. Raises `InvalidRequest` where there is none."""
        scorer = self._models.scorer
        if scorer is None:
            raise InvalidRequest(
                "method: this application has no cross-encoder; expected BI_ENCODER", field="method"
            )
        for passage, field in zip(passages, self._check_passages(passages), strict=True):
            self._reader.check_text(passage, field)
        self._reader.check_text(query, "query")
        num_chars = self._reader.check_pairs(query, passages)
        pairs = await offload_if_large(num_chars, lambda: scorer.tokenize(query, passages))
        jobs = [Job(pair.digest(), len(pair.ids), pair) for pair in pairs]
        answers = await self._scoring.run(jobs, deadline_s)
        num_tokens = sum(len(pair.ids) for pair in pairs)
        self._metrics.answered(len(pairs), num_tokens, answers.queue_s)
        return Scored(answers.results, num_tokens, 0, answers.queue_s, answers.compute_s)

    def load(self) -> Load:
        """What it is doing right now."""
        return Load(
            num_waiting_inputs=self._embedding.num_waiting + self._scoring.num_waiting,
            num_running_inputs=self._embedding.num_running + self._scoring.num_running,
            cache_hits=self._cache_metrics.num_hits,
            cache_misses=self._cache_metrics.num_misses,
            cache_available=self._cache is not None and self._cache.available,
        )

    async def close(self) -> None:
        """Refuses what waits, lets the batch under way finish, closes connections."""
        await self._embedding.close()
        await self._scoring.close()
        if self._cache is not None:
            await self._cache.close()

    def _connect(self, config: EmbeddingConfig, redis_url: str | None) -> EmbeddingCache | None:
        if redis_url is None or not config.cache.enabled:
            return None
        encoder = self._models.encoder
        return EmbeddingCache(
            store.connect(redis_url),
            cache_prefix(encoder.weight_hash, encoder.dtype, normalized=encoder.normalized),
            encoder.dimensions,
            config.cache,
            self._cache_metrics,
        )

    def _check_passages(self, passages: Sequence[str]) -> list[str]:
        """Names of the passages in errors."""
        self._reader.check_count(len(passages), "passages")
        return [f"passages[{position}]" for position in range(len(passages))]

    async def _vectors(self, read: list[TokenizedInput], deadline_s: float) -> Embedded:
        """From the cache what is there, from the model the rest."""
        digests = [item.digest() for item in read]
        found: list[Vector | None] = [None] * len(read)
        if self._cache is not None:
            found = await self._cache.get(digests)
        cached = [vector is not None for vector in found]
        missing = [position for position, is_cached in enumerate(cached) if not is_cached]
        jobs = [Job(digests[i], len(read[i].ids), read[i]) for i in missing]
        answers = await self._embedding.run(jobs, deadline_s)
        if self._cache is not None and missing:
            self._cache.put([digests[i] for i in missing], answers.results)
        for position, vector in zip(missing, answers.results, strict=True):
            found[position] = vector
        vectors = [vector for vector in found if vector is not None]
        num_tokens = sum(len(item.ids) for item in read)
        self._metrics.answered(len(read), num_tokens, answers.queue_s)
        return Embedded(vectors, read, cached, answers.queue_s, answers.compute_s)

    def _embed_batch(self, batch: Sequence[TokenizedInput]) -> list[Vector]:
        return list(self._models.encoder.embed(batch))

    def _score_batch(self, batch: Sequence[TokenizedPair]) -> list[float]:
        assert self._models.scorer is not None
        scores: list[float] = self._models.scorer.score(batch).tolist()
        return scores


def _encoder_options(config: EmbeddingConfig) -> EncoderOptions:
    return EncoderOptions(
        dtype=config.dtype,
        device=config.device,
        max_input_tokens=config.max_input_tokens,
        query_prompt=config.query_prompt,
        passage_prompt=config.passage_prompt,
        normalize=config.normalize,
    )


def _scorer_options(config: EmbeddingConfig) -> ScorerOptions:
    assert config.reranker is not None
    return ScorerOptions(
        dtype=config.reranker.dtype,
        device=config.device,
        max_pair_tokens=config.reranker.max_pair_tokens,
    )
