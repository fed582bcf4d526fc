"""`AsyncClient`: the platform from asyncio."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

import grpc

from orrery.answers import AsyncAnswerStream
from orrery.async_connection import AsyncConnection
from orrery.calls.common import CallOptions
from orrery.calls.embedding import EmbeddingCalls
from orrery.calls.generation import GenerationCalls
from orrery.calls.images import ImageCalls
from orrery.calls.moe import MoeCalls
from orrery.calls.rag import RagCalls
from orrery.calls.retrieval import RetrievalCalls
from orrery.client_collections import AsyncCollections
from orrery.client_documents import AsyncDocuments
from orrery.client_images import AsyncImages
from orrery.client_moe import AsyncMoe
from orrery.consistency import ConsistencyTokens
from orrery.exchange import AsyncExchange
from orrery.ingest.progress import ProgressInput, reporting
from orrery.ingest.steps import Ingest, IngestOptions
from orrery.requests.embedding import (
    EmbeddingInput,
    EmbeddingPurpose,
    RerankMethod,
    SimilarityInput,
)
from orrery.requests.generation import PromptInput, SamplingOptions
from orrery.requests.pictures import ImageInput
from orrery.requests.rag import AskOptions, build_ask, build_ask_batch
from orrery.requests.search import SearchOptions, build_search, build_search_batch
from orrery.results import (
    Answer,
    AnswerBatch,
    Application,
    BatchResult,
    ClassifyResult,
    Conversation,
    DetokenizeResult,
    EmbeddingLoad,
    EmbeddingModelInfo,
    EmbedResult,
    GenerationResult,
    IngestReport,
    Load,
    ModelInfo,
    RagLoad,
    RerankResult,
    ScoreResult,
    SearchBatchResult,
    SearchResult,
    SimilarityResult,
    TokenizeResult,
)
from orrery.settings import DEFAULT_COLLECTION, DEFAULT_TIMEOUT_S, ClientSettings, ServiceNames
from orrery.streams import AsyncTextStream

__all__ = ["AsyncClient"]


class AsyncClient:
    """A client of the platform for asyncio; see `Client`, whose arguments and errors are the same.

    It belongs to the event loop of its first call. Cancelling a task that awaits a call cancels the
    call, and the server gives back what it held.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        applications: Iterable[str] | None = None,
        max_retries: int = 4,
        num_channels: int = 4,
        credentials: grpc.ChannelCredentials | None = None,
        services: ServiceNames | None = None,
        read_your_writes: bool = True,
    ) -> None:
        self.settings = ClientSettings.from_env(
            target=target,
            api_key=api_key,
            timeout_s=timeout_s,
            applications=None if applications is None else tuple(applications),
            max_retries=max_retries,
            num_channels=num_channels,
            credentials=credentials,
            services=services or ServiceNames(),
            read_your_writes=read_your_writes,
        )
        self._connection = AsyncConnection(self.settings)
        tokens = ConsistencyTokens(enabled=self.settings.read_your_writes)
        self._calls = GenerationCalls(self.settings)
        self._embedding = EmbeddingCalls(self.settings)
        self._retrieval = RetrievalCalls(self.settings, tokens)
        self._rag = RagCalls(self.settings, tokens)
        self.collections = AsyncCollections(self._connection, self._retrieval)
        self.documents = AsyncDocuments(self._connection, self._retrieval)
        self.images = AsyncImages(self._connection, ImageCalls(self.settings))
        self.moe = AsyncMoe(self._connection, MoeCalls(self.settings))

    async def generate(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> GenerationResult:
        """Completes a prompt; see `Client.generate`."""
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        async with AsyncTextStream(self._connection, opening) as stream:
            return await stream.result()

    def stream(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncTextStream:
        """Completes a prompt, event by event; see `Client.stream`. Nothing is sent before the first
        event is awaited."""
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        return AsyncTextStream(self._connection, opening)

    async def generate_batch(
        self,
        prompts: Iterable[PromptInput],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> BatchResult:
        """Completes many prompts in one call; see `Client.generate_batch`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.generate_batch(prompts, sampling, priority=priority, options=options)
        )

    async def score(
        self,
        target: PromptInput,
        *,
        context: PromptInput | None = None,
        top_logprobs: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ScoreResult:
        """Log-probability of each token of a text; see `Client.score`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.score(target, context, top_logprobs=top_logprobs, options=options)
        )

    async def tokenize(
        self,
        prompt: PromptInput,
        *,
        add_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> TokenizeResult:
        """The tokens of a prompt; see `Client.tokenize`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.tokenize(prompt, add_special_tokens=add_special_tokens, options=options)
        )

    async def detokenize(
        self,
        token_ids: Iterable[int],
        *,
        skip_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DetokenizeResult:
        """The text of token ids; see `Client.detokenize`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(
            self._calls.detokenize(
                token_ids, skip_special_tokens=skip_special_tokens, options=options
            )
        )

    async def applications(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[Application, ...]:
        """Every application of the platform; see `Client.applications`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.applications(options))

    async def check_ready(
        self,
        application: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Returns where an application serves as it should; see `Client.check_ready`."""
        options = CallOptions(None, timeout_s, request_id)
        await self._connection.run(self._calls.check_ready(application, options))

    async def models(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[ModelInfo, ...]:
        """The models that are served at this moment; see `Client.models`."""
        found = await self.applications(timeout_s=timeout_s, request_id=request_id)
        return tuple(application.model for application in found if application.model is not None)

    async def model(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ModelInfo:
        """What a model is; see `Client.model`."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.model(options))

    async def load(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Load:
        """What a model's engine is doing right now."""
        options = CallOptions(model, timeout_s, request_id)
        return await self._connection.run(self._calls.load(options))

    async def embed(
        self,
        texts: str | Iterable[EmbeddingInput],
        *,
        purpose: EmbeddingPurpose | None = None,
        dimensions: int | None = None,
        truncate: bool | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbedResult:
        """Vectors of texts; see `Client.embed`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._embedding.embed(
                texts,
                purpose=purpose,
                dimensions=dimensions,
                truncate=truncate,
                application=application,
                options=options,
            )
        )

    async def embed_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        dimensions: int | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbedResult:
        """Vectors of pictures, in their order; see `Client.embed_images`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._embedding.embed_images(
                images, dimensions=dimensions, application=application, options=options
            )
        )

    async def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Iterable[str],
        *,
        templates: str | Iterable[str] | None = None,
        top_n: int | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ClassifyResult:
        """Which of the labels fit each picture; see `Client.classify`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._embedding.classify(
                images,
                labels,
                templates=templates,
                top_n=top_n,
                application=application,
                options=options,
            )
        )

    async def similarity(
        self,
        left: SimilarityInput | Iterable[SimilarityInput],
        right: SimilarityInput | Iterable[SimilarityInput],
        *,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> SimilarityResult:
        """Cosines between texts and pictures; see `Client.similarity`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._embedding.similarity(left, right, application=application, options=options)
        )

    async def rerank(
        self,
        query: str,
        passages: Iterable[str],
        *,
        top_n: int | None = None,
        method: RerankMethod | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> RerankResult:
        """Passages by their relevance to a query; see `Client.rerank`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._embedding.rerank(
                query,
                passages,
                top_n=top_n,
                method=method,
                application=application,
                options=options,
            )
        )

    async def embedding_model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbeddingModelInfo:
        """What an application embeds with; see `Client.embedding_model`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._embedding.model(application, options))

    async def embedding_load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbeddingLoad:
        """What an embedding application is doing right now; see `Client.embedding_load`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._embedding.load(application, options))

    async def ingest(
        self,
        path: str | os.PathLike[str],
        *,
        collection: str = DEFAULT_COLLECTION,
        progress: ProgressInput = False,
        prune: bool = False,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **choices: Unpack[IngestOptions],
    ) -> IngestReport:
        """Puts the files of a folder; see `Client.ingest`."""
        options = CallOptions(None, math.inf if timeout_s is None else timeout_s, request_id)
        steps = Ingest(
            self._retrieval, Path(path), collection, prune=prune, options=options, choices=choices
        ).steps()
        async with aclosing(AsyncExchange(self._connection, steps)) as exchange:
            with reporting(progress) as tell:
                async for done in exchange:
                    tell(done)
        report: IngestReport = exchange.value
        return report

    async def search(
        self,
        collection: str = DEFAULT_COLLECTION,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        image: ImageInput | None = None,
        explain: bool = False,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **search: Unpack[SearchOptions],
    ) -> SearchResult:
        """The chunks of a collection that are nearest to a query; see `Client.search`."""
        request, pictures = build_search(collection, text, vector, image, search, explain=explain)
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._retrieval.search(request, pictures, consistency_token, options)
        )

    async def search_batch(
        self,
        collection: str,
        queries: Iterable[str | Sequence[float] | ImageInput],
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **search: Unpack[SearchOptions],
    ) -> SearchBatchResult:
        """Many searches; see `Client.search_batch`."""
        request, pictures = build_search_batch(collection, queries, search)
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._retrieval.search_batch(request, pictures, consistency_token, options)
        )

    @overload
    async def ask(
        self,
        question: str,
        *,
        collection: str = ...,
        stream: Literal[False] = ...,
        conversation: str | None = ...,
        model: str | None = ...,
        explain: bool = ...,
        consistency_token: str | None = ...,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        **ask: Unpack[AskOptions],
    ) -> Answer: ...
    @overload
    async def ask(
        self,
        question: str,
        *,
        collection: str = ...,
        stream: Literal[True],
        conversation: str | None = ...,
        model: str | None = ...,
        explain: bool = ...,
        consistency_token: str | None = ...,
        timeout_s: float | None = ...,
        request_id: str | None = ...,
        **ask: Unpack[AskOptions],
    ) -> AsyncAnswerStream: ...
    async def ask(
        self,
        question: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        stream: bool = False,
        conversation: str | None = None,
        model: str | None = None,
        explain: bool = False,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **ask: Unpack[AskOptions],
    ) -> Answer | AsyncAnswerStream:
        """Answers a question from documents; see `Client.ask`. A stream is awaited, then iterated:

        `async for event in await client.ask(question, stream=True)`.
        """
        request = build_ask(
            question, collection, ask, conversation=conversation, model=model, explain=explain
        )
        options = CallOptions(None, timeout_s, request_id)
        answers = AsyncAnswerStream(
            self._connection, self._rag.ask(request, consistency_token, options)
        )
        if stream:
            return answers
        async with answers:
            return await answers.result()

    async def ask_batch(
        self,
        questions: Iterable[str],
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **ask: Unpack[AskOptions],
    ) -> AnswerBatch:
        """Answers many questions in one call; see `Client.ask_batch`."""
        request = build_ask_batch(questions, collection, ask, model=model)
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._rag.ask_batch(request, consistency_token, options))

    async def conversation(
        self, conversation: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Conversation:
        """What a conversation remembers; see `Client.conversation`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._rag.conversation(conversation, options))

    async def delete_conversation(
        self, conversation: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> None:
        """Forgets a conversation; see `Client.delete_conversation`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._rag.delete_conversation(conversation, options))

    async def rag_load(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> RagLoad:
        """What the RAG service is doing right now; see `Client.rag_load`."""
        return await self._connection.run(self._rag.load(CallOptions(None, timeout_s, request_id)))

    def consistency_token(self, collection: str | None = None) -> str:
        """The newest token of a collection; see `Client.consistency_token`."""
        return self._retrieval.tokens.newest(collection)

    async def close(self) -> None:
        """Cancels what is under way and closes the connections. May be called twice."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.settings.target!r})"
