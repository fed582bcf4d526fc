"""The other services, asked over gRPC: the pipeline's words to protobuf and back.

One `Peer` reaches all of them; the application's name chooses. Knows nothing of the pipeline.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

from orrery import methods
from orrery.v1 import common_pb2, embedding_pb2, generation_pb2, retrieval_pb2
from services.rag.services import (
    Embedded,
    Embedder,
    Found,
    Piece,
    Sampling,
    Search,
    SearchQuery,
    TextPurpose,
    Tokenized,
)
from services.rag.types import (
    GenerationTiming,
    GenerationUsage,
    Message,
    Passage,
    SearchMode,
    StageTime,
)
from services.runtime.errors import (
    ERROR_TABLE,
    CollectionNotFound,
    DeadlineExceeded,
    DependencyDown,
    Internal,
)
from services.runtime.peer import Caller, Peer

__all__ = ["PeerServices"]

NO_EMBEDDING = "none"

_ROLES: Mapping[str, common_pb2.Role] = MappingProxyType(
    {
        "system": common_pb2.ROLE_SYSTEM,
        "user": common_pb2.ROLE_USER,
        "assistant": common_pb2.ROLE_ASSISTANT,
    }
)
_MODES: Mapping[SearchMode, retrieval_pb2.SearchMode] = MappingProxyType(
    {
        SearchMode.AUTO: retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
        SearchMode.HYBRID: retrieval_pb2.SEARCH_MODE_HYBRID,
        SearchMode.DENSE: retrieval_pb2.SEARCH_MODE_DENSE,
        SearchMode.SPARSE: retrieval_pb2.SEARCH_MODE_SPARSE,
    }
)
_PURPOSES: Mapping[TextPurpose, embedding_pb2.EmbeddingPurpose] = MappingProxyType(
    {
        TextPurpose.QUERY: embedding_pb2.EMBEDDING_PURPOSE_QUERY,
        TextPurpose.PASSAGE: embedding_pb2.EMBEDDING_PURPOSE_PASSAGE,
    }
)
_BY_REASON = MappingProxyType({kind.reason: error for error, kind in ERROR_TABLE.items()})


class PeerServices:
    """A `services.rag.services.Services` over gRPC."""

    def __init__(self, peer: Peer, *, retrieval: str) -> None:
        self._peer = peer
        self._retrieval = retrieval

    async def embedder(
        self, collection: str, consistency_token: str, caller: Caller
    ) -> Embedder | None:
        """As the collection was created with."""
        request = retrieval_pb2.GetCollectionRequest(
            name=collection, consistency_token=consistency_token
        )
        try:
            response = await self._peer.unary(
                self._retrieval, methods.GET_COLLECTION, request, caller
            )
        except CollectionNotFound as error:
            # What that service calls `name` is the question's `collection`.
            raise CollectionNotFound(
                f"collection: there is no collection {collection[:128]!r}", field="collection"
            ) from error
        config = response.collection.config
        if config.embedding_application == NO_EMBEDDING:
            return None
        return Embedder(config.embedding_application, config.dimensions)

    async def embed(
        self, embedder: Embedder, texts: Sequence[str], purpose: TextPurpose, caller: Caller
    ) -> Embedded:
        """What is longer than the model reads is cut, and counted."""
        request = embedding_pb2.EmbedTextRequest(
            inputs=[embedding_pb2.EmbeddingInput(text=text) for text in texts],
            purpose=_PURPOSES[purpose],
            dimensions=embedder.dimensions,
            truncate=True,
        )
        application = embedder.application
        response = await self._peer.unary(application, methods.EMBED_TEXT, request, caller)
        return Embedded(
            tuple(tuple(embedding.values) for embedding in response.embeddings),
            sum(embedding.truncated for embedding in response.embeddings),
        )

    async def search(self, search: Search, caller: Caller) -> Found:
        """One query by Search, several by SearchBatch."""
        if len(search.queries) > 1:
            return await self._search_batch(search, caller)
        request = retrieval_pb2.SearchRequest(
            collection=search.collection,
            query=_query(search.queries[0]),
            options=_options(search),
            consistency_token=search.consistency_token,
            explain=search.explain,
        )
        response = await self._peer.unary(self._retrieval, methods.SEARCH, request, caller)
        return Found(
            rankings=(_passages(response.hits),),
            index_generation=response.index_generation,
            rerank_ns=response.timing.rerank_ns,
            timeline=tuple(
                StageTime(stage.stage, stage.start_ns, stage.duration_ns, stage.detail)
                for stage in response.timeline
            ),
        )

    async def _search_batch(self, search: Search, caller: Caller) -> Found:
        request = retrieval_pb2.SearchBatchRequest(
            collection=search.collection,
            queries=map(_query, search.queries),
            options=_options(search),
            consistency_token=search.consistency_token,
        )
        response = await self._peer.unary(self._retrieval, methods.SEARCH_BATCH, request, caller)
        for result in response.results:
            if result.HasField("error"):
                error = result.error
                kind = _BY_REASON.get(error.reason, Internal)
                raise kind(error.message, field=error.field or None)
        return Found(
            rankings=tuple(_passages(result.hits) for result in response.results),
            index_generation=response.index_generation,
            rerank_ns=response.timing.rerank_ns,
        )

    async def tokenize(
        self, application: str, chat: Sequence[Message], caller: Caller
    ) -> Tokenized:
        """The chat through the model's own template."""
        messages = [
            common_pb2.ChatMessage(role=_ROLES[message.role], content=message.content)
            for message in chat
        ]
        prompt = common_pb2.Prompt(chat=common_pb2.ChatMessages(messages=messages))
        request = generation_pb2.TokenizeRequest(prompt=prompt)
        response = await self._peer.unary(application, methods.TOKENIZE, request, caller)
        return Tokenized(tuple(response.token_ids), response.max_model_len)

    async def generate(
        self, application: str, token_ids: Sequence[int], sampling: Sampling, caller: Caller
    ) -> AsyncGenerator[Piece, None]:
        """The prompt goes as the ids that were counted."""
        request = generation_pb2.GenerateRequest(
            prompt=common_pb2.Prompt(token_ids=common_pb2.TokenIds(ids=token_ids)),
            sampling=generation_pb2.SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seed=sampling.seed,
                n=sampling.num_samples,
            ),
        )
        num_left = sampling.num_samples
        stream = self._peer.server_stream(application, methods.GENERATE, request, caller)
        async with aclosing(stream) as responses:
            async for response in responses:
                usage = GenerationUsage(
                    response.usage.prompt_tokens,
                    response.usage.completion_tokens,
                    response.usage.cached_tokens,
                )
                timing = GenerationTiming(
                    response.timing.queue_ns,
                    response.timing.prefill_ns,
                    response.timing.decode_ns,
                )
                for delta in response.choices:
                    if delta.finish_reason == generation_pb2.FINISH_REASON_DEADLINE:
                        raise DeadlineExceeded("the time was up before the answer was whole")
                    num_left -= delta.finish_reason != generation_pb2.FINISH_REASON_UNSPECIFIED
                    truncated = delta.finish_reason == generation_pb2.FINISH_REASON_LENGTH
                    yield Piece(delta.index, delta.text, response.model, usage, timing, truncated)
        if num_left:  # one that is being stopped may end a stream as if all were well
            raise DependencyDown(f"the service {application!r} stopped before its answer was whole")


def _query(query: SearchQuery) -> retrieval_pb2.SearchQuery:
    return retrieval_pb2.SearchQuery(text=query.text, vector=query.vector or ())


def _options(search: Search) -> retrieval_pb2.SearchOptions:
    """What the caller said in the retrieval service's own words, and what the pipeline decides."""
    options = retrieval_pb2.SearchOptions()
    if search.rest is not None:
        assert isinstance(search.rest, retrieval_pb2.SearchOptions)
        options.CopyFrom(search.rest)
    options.k = search.k
    options.mode = _MODES[search.mode]
    if search.min_score is not None:
        options.min_score = search.min_score
    return options


def _passages(hits: Sequence[retrieval_pb2.Hit]) -> tuple[Passage, ...]:
    # A picture has no text: nothing can be answered or cited from it.
    return tuple(_passage(hit) for hit in hits if hit.chunk.text.strip())


def _passage(hit: retrieval_pb2.Hit) -> Passage:
    chunk = hit.chunk
    return Passage(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        document_title=chunk.document_title,
        file_name=chunk.file_name,
        title_path=tuple(chunk.title_path),
        text=chunk.text,
        start=chunk.start,
        line_start=chunk.line_start,
        line_end=chunk.line_end,
        page=chunk.page,
        score=hit.score,
        source=hit,
    )
