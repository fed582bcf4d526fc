"""One search from question to hits: embed the query, find candidates, rerank, select.

    wait (for the token) -> embed -> search -> rerank -> select

Knows nothing of protobuf and Redis.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieval.checks import check_filter_form
from services.retrieval.concurrency import run_all
from services.retrieval.config import RequestLimits
from services.retrieval.embedder import Embedder, Purpose, RerankBy
from services.retrieval.index.batching import SearchBatcher
from services.retrieval.index.generation import Generation, hits_needed
from services.retrieval.index.text import chunk_search_text
from services.retrieval.timeline import Timeline
from services.retrieval.types import (
    CollectionConfig,
    Filter,
    Hit,
    Query,
    SearchMode,
    SearchOptions,
)
from services.retrieval.vectors import checked_vector, for_metric
from services.runtime.errors import DeadlineExceeded, InvalidRequest, OrreryError
from services.runtime.peer import Caller

__all__ = ["AskedSearch", "Found", "Searched", "Searcher", "check_asked", "check_query"]

_DEFAULT_CANDIDATES = 50
_MAX_RRF_K = 100_000
# Choosing diverse ones among so many would hold up the event loop.
_SELECT_IN_THREAD_HITS = 100


@dataclass(frozen=True, slots=True)
class AskedSearch:
    """What a client asks for; None = the default, which may depend on the query."""

    k: int = 10
    mode: SearchMode | None = None
    filter: Filter | None = None
    dense_weight: float = 1.0
    sparse_weight: float = 1.0
    rrf_k: int = 20
    num_candidates: int | None = None
    min_score: float | None = None
    mmr_lambda: float | None = None
    max_per_document: int | None = None
    rerank: RerankBy | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The hits, best first, and the tokens that embedding and reranking read."""

    hits: list[Hit]
    num_tokens: int


def check_asked(asked: AskedSearch, limits: RequestLimits) -> None:
    """Raises `InvalidRequest` naming the option that is out of range."""
    _check_range("options.k", asked.k, 1, limits.max_k)
    most = limits.max_rerank_candidates if asked.rerank is not None else limits.max_candidates
    if asked.num_candidates is not None:
        _check_range("options.num_candidates", asked.num_candidates, asked.k, most)
    elif asked.k > most:
        raise InvalidRequest(
            f"options.k: at most {most} chunks can be reranked, got {asked.k}", field="options.k"
        )
    _check_range("options.fusion.rrf_k", asked.rrf_k, 1, _MAX_RRF_K)
    weights = (("dense", asked.dense_weight), ("sparse", asked.sparse_weight))
    for name, weight in weights:
        _check_range(f"options.fusion.{name}_weight", weight, 0.0, 1e6)
    if asked.dense_weight == asked.sparse_weight == 0.0:
        raise InvalidRequest("options.fusion: one weight must be positive", field="options.fusion")
    if asked.min_score is not None and not math.isfinite(asked.min_score):
        raise InvalidRequest(
            "options.min_score: expected a finite number", field="options.min_score"
        )
    if asked.mmr_lambda is not None:
        _check_range("options.diversity.lambda", asked.mmr_lambda, 0.0, 1.0)
    if asked.max_per_document is not None:
        _check_range("options.max_per_document", asked.max_per_document, 1, limits.max_k)
    if asked.filter is not None:
        check_filter_form(asked.filter, "options.filter")


def _check_range(field: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN compares false
        raise InvalidRequest(f"{field}: expected {least} to {most}, got {value}", field=field)


def check_query(query: Query, limits: RequestLimits, field: str = "query") -> None:
    """Raises `InvalidRequest` for a query without content, or with too much."""
    if query.text is None and query.vector is None:
        raise InvalidRequest(f"{field}: expected a text or a vector", field=field)
    if query.text is not None:
        if not query.text.strip():
            raise InvalidRequest(f"{field}.text: it is blank", field=f"{field}.text")
        if len(query.text.encode()) > limits.max_query_bytes:
            raise InvalidRequest(
                f"{field}.text: expected at most {limits.max_query_bytes} bytes",
                field=f"{field}.text",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What is searched, and on whose behalf."""

    config: CollectionConfig
    generation: Generation
    timeline: Timeline
    caller: Caller


@dataclass(slots=True, eq=False)
class _Ready:
    """A query that was checked: `query` has its vector once that is known."""

    query: Query
    options: SearchOptions
    num_tokens: int = 0

    @property
    def text_to_embed(self) -> str | None:
        """None = there is nothing left to embed."""
        if self.options.mode is SearchMode.SPARSE or self.query.vector is not None:
            return None
        return self.query.text


class Searcher:
    """Runs searches of one replica: batches of them in threads, the rest on the event loop."""

    def __init__(
        self,
        embedder: Embedder,
        batcher: SearchBatcher,
        limits: RequestLimits,
        max_batch_concurrency: int,
    ) -> None:
        self._embedder = embedder
        self._batcher = batcher
        self._limits = limits
        self._max_batch_concurrency = max_batch_concurrency

    @property
    def num_waiting(self) -> int:
        """Searches that wait for a batch."""
        return self._batcher.num_waiting

    async def search(self, where: Searched, query: Query, asked: AskedSearch) -> Found:
        """The hits of one query. Raises `OrreryError`."""
        _check_filter(where, asked)
        ready = self._ready(where, query, asked, "query")
        if ready.text_to_embed is not None:
            await self._embed(where, [ready])
        return await self._find(where, ready, asked)

    async def search_batch(
        self, where: Searched, queries: Sequence[Query], asked: AskedSearch
    ) -> list[Found | OrreryError]:
        """One result or error per query, in order; all texts are embedded in one call.

        Raises what is wrong with all of them.
        """
        _check_filter(where, asked)
        outcomes: dict[int, Found | OrreryError] = {}
        ready: dict[int, _Ready] = {}
        for index, query in enumerate(queries):
            try:
                ready[index] = self._ready(where, query, asked, f"queries[{index}]")
            except InvalidRequest as error:
                outcomes[index] = error
        unembedded = [one for one in ready.values() if one.text_to_embed is not None]
        if unembedded:
            await self._embed(where, unembedded)
        slots = asyncio.Semaphore(self._max_batch_concurrency)

        async def find(index: int, one: _Ready) -> None:
            try:
                async with slots:
                    outcomes[index] = await self._find(where, one, asked)
            except DeadlineExceeded:
                raise
            except OrreryError as error:
                outcomes[index] = error

        await run_all(find(index, one) for index, one in ready.items())
        return [outcomes[index] for index in range(len(queries))]

    def _ready(self, where: Searched, query: Query, asked: AskedSearch, field: str) -> _Ready:
        """The query with what was left to choose. Raises `InvalidRequest`."""
        check_query(query, self._limits, field)
        config = where.config
        mode = _mode(query, asked.mode, config.embedding_application, field)
        most = self._limits.max_candidates
        if asked.rerank is not None:
            _check_rerankable(query, config, field)
            most = self._limits.max_rerank_candidates
        if query.vector is not None:
            vector = checked_vector(
                query.vector, config.dimensions, config.metric, f"{field}.vector"
            )
            query = Query(query.text, vector)
        default = min(max(4 * asked.k, _DEFAULT_CANDIDATES), most)
        options = SearchOptions(
            mode=mode,
            k=asked.k,
            filter=asked.filter,
            dense_weight=asked.dense_weight,
            sparse_weight=asked.sparse_weight,
            rrf_k=asked.rrf_k,
            num_candidates=default if asked.num_candidates is None else asked.num_candidates,
            min_score=asked.min_score,
            mmr_lambda=asked.mmr_lambda,
            max_per_document=asked.max_per_document,
        )
        return _Ready(query, options)

    async def _embed(self, where: Searched, queries: Sequence[_Ready]) -> None:
        """Gives queries their vectors, in calls that the embedding model takes."""
        application, dimensions = where.config.embedding_application, where.config.dimensions
        assert application is not None  # the modes were chosen so
        with where.timeline.stage("embed") as stage:
            texts = [one.query.text or "" for one in queries]
            embedded = await self._embedder.embed(
                application, texts, Purpose.QUERY, dimensions, where.caller
            )
            stage.detail = f"{embedded.num_tokens} tokens"
            if embedded.num_truncated:
                stage.detail += f", {embedded.num_truncated} texts cut to the model's context"
        vectors = for_metric(embedded.vectors, where.config.metric)
        for one, vector, num_tokens in zip(queries, vectors, embedded.tokens, strict=True):
            one.query = Query(one.query.text, vector)
            one.num_tokens = num_tokens

    async def _find(self, where: Searched, ready: _Ready, asked: AskedSearch) -> Found:
        """The hits of one query that has all it needs."""
        options, rerank = ready.options, asked.rerank
        limit = hits_needed(options, reranks=rerank is not None)
        with where.timeline.stage("search") as stage:
            hits = await self._batcher.search(where.generation, ready.query, options, limit=limit)
            stage.detail = f"{len(hits)} candidates"
        num_tokens = ready.num_tokens
        if rerank is not None and hits:
            with where.timeline.stage("rerank") as stage:
                hits, num_read = await self._reranked(where, ready.query, hits, rerank)
                stage.detail = f"{num_read} tokens"
                num_tokens += num_read
        with where.timeline.stage("select") as stage:
            if options.mmr_lambda is not None and len(hits) > _SELECT_IN_THREAD_HITS:
                hits = await asyncio.to_thread(where.generation.select, hits, options)
            else:
                hits = where.generation.select(hits, options)
            stage.detail = f"{len(hits)} hits"
        return Found(hits, num_tokens)

    async def _reranked(
        self, where: Searched, query: Query, hits: list[Hit], by: RerankBy
    ) -> tuple[list[Hit], int]:
        application, text = where.config.embedding_application, query.text
        assert application is not None  # both were checked
        assert text is not None
        passages = [chunk_search_text(hit.chunk, hit.document) for hit in hits]
        reranked = await self._embedder.rerank(application, text, passages, by, where.caller)
        for hit, score in zip(hits, reranked.scores, strict=True):
            hit.score = hit.rerank_score = score
        hits.sort(key=lambda hit: (-hit.score, hit.document.id, hit.ordinal))
        return hits, reranked.num_tokens


def _check_filter(where: Searched, asked: AskedSearch) -> None:
    if asked.filter is not None:
        where.generation.check_filter(asked.filter)


def _mode(
    query: Query, asked: SearchMode | None, application: str | None, field: str
) -> SearchMode:
    """The mode that fits what the query has. Raises `InvalidRequest` where the asked one cannot."""
    has_text = query.text is not None
    can_be_dense = query.vector is not None or (has_text and application is not None)
    if asked is None:
        if has_text and can_be_dense:
            return SearchMode.HYBRID
        return SearchMode.SPARSE if has_text else SearchMode.DENSE
    if asked is not SearchMode.DENSE and not has_text:
        raise InvalidRequest(
            f"{field}.text: {asked.name} mode searches by words; expected a text",
            field=f"{field}.text",
        )
    if asked is SearchMode.SPARSE and query.vector is not None:
        raise InvalidRequest(
            f"{field}.vector: SPARSE mode searches by words alone", field=f"{field}.vector"
        )
    if asked is not SearchMode.SPARSE and not can_be_dense:
        raise InvalidRequest(
            f"{field}.vector: this collection has no embedding application: a query by meaning "
            "brings its vector",
            field=f"{field}.vector",
        )
    return asked


def _check_rerankable(query: Query, config: CollectionConfig, field: str) -> None:
    if config.embedding_application is None:
        raise InvalidRequest(
            "options.rerank: this collection has no embedding application", field="options.rerank"
        )
    if query.text is None:
        raise InvalidRequest(
            f"{field}.text: passages are reranked by the words of the query; expected a text",
            field=f"{field}.text",
        )
