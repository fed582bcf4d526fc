"""One search from question to hits: embed the query, find candidates, rerank, select.

    wait (for the token) -> embed -> search -> rerank -> select

Knows nothing of protobuf and Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieval.asked_searches import (
    AskedSearch,
    check_query,
    check_rerankable,
    chosen_mode,
)
from services.retrieval.config import RequestLimits
from services.retrieval.embedder import Embedder, Purpose, RerankBy
from services.retrieval.index.batching import SearchBatcher
from services.retrieval.index.generation import Generation, hits_needed
from services.retrieval.index.text import chunk_search_text
from services.retrieval.pictures import naming_the_picture
from services.retrieval.timeline import Timeline
from services.retrieval.types import (
    CollectionConfig,
    Hit,
    Picture,
    Query,
    SearchMode,
    SearchOptions,
)
from services.retrieval.vectors import checked_vector, for_metric
from services.runtime.errors import DeadlineExceeded, InvalidRequest, OrreryError
from services.runtime.peer import Caller
from services.runtime.pictures import inspect_picture
from services.runtime.run_all import run_all

__all__ = ["Found", "Searched", "Searcher"]

_DEFAULT_CANDIDATES = 50
# Choosing diverse ones among so many would hold up the event loop.
_SELECT_IN_THREAD_HITS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The hits, best first, and the tokens that embedding and reranking read."""

    hits: list[Hit]
    num_tokens: int


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
        query = self.query
        if self.options.mode is SearchMode.SPARSE or query.vector is not None:
            return None
        return None if query.picture is not None else query.text


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
        self.num_done = 0  # since the start; each of a batch counts

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
        if ready.query.picture is not None:
            await self._embed_picture(where, ready, ready.query.picture, "query.image")
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
                    if one.query.picture is not None:
                        field = f"queries[{index}].image"
                        await self._embed_picture(where, one, one.query.picture, field)
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
        mode = chosen_mode(query, asked.mode, config.embedding_application, field)
        most = self._limits.max_candidates
        if asked.rerank is not None:
            check_rerankable(query, config, field)
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

    async def _embed_picture(
        self, where: Searched, one: _Ready, picture: Picture, field: str
    ) -> None:
        """Gives a query the vector of its picture. Raises `InvalidRequest` naming `field`."""
        application, dimensions = where.config.embedding_application, where.config.dimensions
        assert application is not None  # the mode was chosen so
        model = await self._embedder.model(application, where.caller)
        limits = model.picture_limits
        if limits is None:
            raise InvalidRequest(
                f"{field}: the collection's embedding application {application!r} embeds texts "
                "alone",
                field=field,
            )
        with where.timeline.stage("embed") as stage:
            await asyncio.to_thread(
                inspect_picture,
                picture.data,
                limits,
                f"{field}.data",
                media_type=picture.media_type,
            )
            with naming_the_picture(f"{field}.data"):
                vectors = await self._embedder.embed_pictures(
                    application, [picture.data], dimensions, where.caller, patiently=False
                )
            stage.detail = "1 picture"
        one.query = Query(one.query.text, for_metric(vectors, where.config.metric)[0])

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
        self.num_done += 1
        return Found(hits, num_tokens)

    async def _reranked(
        self, where: Searched, query: Query, hits: list[Hit], by: RerankBy
    ) -> tuple[list[Hit], int]:
        application, text = where.config.embedding_application, query.text
        assert application is not None  # both were checked
        assert text is not None
        passages = list(map(_passage, hits))
        reranked = await self._embedder.rerank(application, text, passages, by, where.caller)
        for hit, score in zip(hits, reranked.scores, strict=True):
            hit.score = hit.rerank_score = score
        hits.sort(key=lambda hit: (-hit.score, hit.document.id, hit.ordinal))
        return hits, reranked.num_tokens


def _passage(hit: Hit) -> str:
    """What reranking reads of a hit. Never without words: an untitled picture has none of its own,
    and one passage without any would have the whole search refused.
    """
    if hit.chunk.text:
        return chunk_search_text(hit.chunk, hit.document)
    return f"picture: {hit.document.title}"


def _check_filter(where: Searched, asked: AskedSearch) -> None:
    if asked.filter is not None:
        where.generation.check_filter(asked.filter)
