"""`Client`: the platform from ordinary, blocking Python."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

import grpc

from orrery.answers import AnswerStream
from orrery.calls.common import CallOptions
from orrery.calls.embedding import EmbeddingCalls
from orrery.calls.generation import GenerationCalls
from orrery.calls.images import ImageCalls
from orrery.calls.moe import MoeCalls
from orrery.calls.rag import RagCalls
from orrery.calls.retrieval import RetrievalCalls
from orrery.client_collections import Collections
from orrery.client_documents import Documents
from orrery.client_images import Images
from orrery.client_moe import Moe
from orrery.connection import Connection
from orrery.consistency import ConsistencyTokens
from orrery.exchange import Exchange
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
from orrery.streams import TextStream

__all__ = ["Client"]


class Client:
    """A client of the platform. Thread-safe; connections are made when first needed.

    `model` is the name of a served model (`orrery-llama`) or of the application that serves it
    (`llama`); it may be left out where only one is served. Calls that fail because nobody answers
    or a queue is full are repeated, with growing random pauses, within the call's time and never
    after its first token.

    Args:
        target: `host:port` of the gRPC endpoint; by default `ORRERY_TARGET`, or 127.0.0.1:9000.
            `grpcs://host:port` = TLS with the system's certificates.
        api_key: By default `ORRERY_API_KEY`, if set.
        timeout_s: Time of a call where the call gives none, in seconds; `math.inf` = no limit.
        applications: Where to look for models, instead of asking the platform what there is.
        max_retries: Most repetitions of one call.
        num_channels: Connections to spread calls over; each carries 1,024 calls at once.
        credentials: For TLS with other certificates, made by `grpc.ssl_channel_credentials`.
        services: Names of the applications for all that is not text generation.
        read_your_writes: Reads of a collection wait until the replica that answers them has this
            client's own writes to it; otherwise they see what that replica has.

    Raises:
        InvalidRequestError: `timeout_s` is not positive.
        ValueError: Another argument makes no sense.
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
        self._connection = Connection(self.settings)
        tokens = ConsistencyTokens(enabled=self.settings.read_your_writes)
        self._calls = GenerationCalls(self.settings)
        self._embedding = EmbeddingCalls(self.settings)
        self._retrieval = RetrievalCalls(self.settings, tokens)
        self._rag = RagCalls(self.settings, tokens)
        self.collections = Collections(self._connection, self._retrieval)
        self.documents = Documents(self._connection, self._retrieval)
        self.images = Images(self._connection, ImageCalls(self.settings))
        self.moe = Moe(self._connection, MoeCalls(self.settings))

    def generate(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> GenerationResult:
        """Completes a prompt and returns the whole answer.

        Args:
            prompt: A text, token ids, or chat messages (`[{"role": ..., "content": ...}]`).
            model: Which model.
            timeout_s: Time of the call in seconds; None = the client's, `math.inf` = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            priority: Lower runs first.
            **sampling: See `SamplingOptions`.

        Raises:
            TypeError: An unknown keyword, or a value of a wrong type.
            OrreryError: See `orrery.errors`.
        """
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        with TextStream(self._connection, opening) as stream:
            return stream.result()

    def stream(
        self,
        prompt: PromptInput,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> TextStream:
        """Completes a prompt, event by event; arguments as for `generate`.

        Nothing is sent before the first event is asked for.
        """
        options = CallOptions(model, timeout_s, request_id)
        opening = self._calls.generate(prompt, sampling, priority=priority, options=options)
        return TextStream(self._connection, opening)

    def generate_batch(
        self,
        prompts: Iterable[PromptInput],
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> BatchResult:
        """Completes many prompts in one call; a prompt that fails has its error in its place."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.generate_batch(prompts, sampling, priority=priority, options=options)
        )

    def score(
        self,
        target: PromptInput,
        *,
        context: PromptInput | None = None,
        top_logprobs: int | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ScoreResult:
        """Log-probability of each token of `target`, after `context` if there is one.

        Args:
            target: What is scored.
            context: What comes before and is not scored.
            top_logprobs: Also return this many best candidates for each position.
            model: Which model.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.score(target, context, top_logprobs=top_logprobs, options=options)
        )

    def tokenize(
        self,
        prompt: PromptInput,
        *,
        add_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> TokenizeResult:
        """The tokens of a prompt. `add_special_tokens` (default True) adds BOS and the like."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.tokenize(prompt, add_special_tokens=add_special_tokens, options=options)
        )

    def detokenize(
        self,
        token_ids: Iterable[int],
        *,
        skip_special_tokens: bool | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> DetokenizeResult:
        """The text of token ids; by default special tokens are part of it."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(
            self._calls.detokenize(
                token_ids, skip_special_tokens=skip_special_tokens, options=options
            )
        )

    def applications(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[Application, ...]:
        """Every application of the platform, with the model it serves or the error it answered."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.applications(options))

    def check_ready(
        self,
        application: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Returns where an application, of any kind, serves as it should.

        Raises:
            UnavailableError: It does not; the message says why.
        """
        options = CallOptions(None, timeout_s, request_id)
        self._connection.run(self._calls.check_ready(application, options))

    def models(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> tuple[ModelInfo, ...]:
        """The models that are served at this moment.

        An application that does not answer is left out; `applications` tells of it.
        """
        found = self.applications(timeout_s=timeout_s, request_id=request_id)
        return tuple(application.model for application in found if application.model is not None)

    def model(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ModelInfo:
        """What a model is: family, sizes, limits, cache geometry, weight hash."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.model(options))

    def load(
        self,
        model: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Load:
        """What a model's engine is doing right now."""
        options = CallOptions(model, timeout_s, request_id)
        return self._connection.run(self._calls.load(options))

    def embed(
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
        """Vectors of texts, in their order: all of them, or an error.

        Args:
            texts: Texts or lists of token ids; one bare text is one input.
            purpose: `query` or `passage`: some models put another prompt before each.
            dimensions: Keep only the first so many, and normalise again.
            truncate: Cut an input that is longer than the model's context instead of refusing it.
            application: Where to embed; by default the client's `services.embedding`.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._embedding.embed(
                texts,
                purpose=purpose,
                dimensions=dimensions,
                truncate=truncate,
                application=application,
                options=options,
            )
        )

    def embed_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        dimensions: int | None = None,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbedResult:
        """Vectors of pictures, in their order: all of them, or an error.

        They are in one space with those of texts that the same application embeds.

        Args:
            images: Bytes, paths or open files; one bare picture is a list of one.
            dimensions: Keep only the first so many, and normalise again.
            application: Where to embed; by default the client's `services.clip`.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._embedding.embed_images(
                images, dimensions=dimensions, application=application, options=options
            )
        )

    def classify(
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
        """Which of the labels fit each picture, without training for them.

        Args:
            images: Bytes, paths or open files; one bare picture is a list of one.
            labels: At least two, all different.
            templates: Texts with `{}` where the label goes: a label is the mean of its prompts. By
                default the application's own.
            top_n: Only so many labels of each picture; by default all.
            application: Where to classify; by default the client's `services.clip`.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._embedding.classify(
                images,
                labels,
                templates=templates,
                top_n=top_n,
                application=application,
                options=options,
            )
        )

    def similarity(
        self,
        left: SimilarityInput | Iterable[SimilarityInput],
        right: SimilarityInput | Iterable[SimilarityInput],
        *,
        application: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> SimilarityResult:
        """Cosines between each of one list and each of another, of texts and pictures.

        Args:
            left: A `str` is a text; a picture is bytes, a `Path` or an open file.
            right: The same.
            application: Where to embed; by default the client's `services.clip`.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._embedding.similarity(left, right, application=application, options=options)
        )

    def rerank(
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
        """Passages by their relevance to a query, best first; `top_n` = only so many."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._embedding.rerank(
                query,
                passages,
                top_n=top_n,
                method=method,
                application=application,
                options=options,
            )
        )

    def embedding_model(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbeddingModelInfo:
        """What an application embeds with: dimensions, limits, precision."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._embedding.model(application, options))

    def embedding_load(
        self,
        application: str | None = None,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> EmbeddingLoad:
        """What an embedding application is doing right now."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._embedding.load(application, options))

    def ingest(
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
        """Puts the files of a folder, or one file, into a collection, which is made if missing.

        A document's id is its file's path relative to the folder, with `/`. Files that have not
        changed cost next to nothing, so an ingest that broke off is simply repeated. Hidden files,
        those of version control and those that are too large are skipped; a file that the service
        cannot read is reported and does not disturb the others. When the service goes away, what
        it has not answered is sent again, as `documents.upsert` does.

        Args:
            path: The folder or file.
            collection: Where to.
            progress: True = a progress bar on stderr; or a function told of each file.
            prune: Remove every document of the collection that has no file in the folder.
            timeout_s: Time of it all in seconds; None = no limit.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **choices: See `IngestOptions`.
        """
        options = CallOptions(None, math.inf if timeout_s is None else timeout_s, request_id)
        steps = Ingest(
            self._retrieval, Path(path), collection, prune=prune, options=options, choices=choices
        ).steps()
        exchange = Exchange(self._connection, steps)
        with closing(exchange), reporting(progress) as tell:
            for done in exchange:
                tell(done)
        report: IngestReport = exchange.value
        return report

    def search(
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
        """The chunks of a collection that are nearest to a text, a vector or a picture.

        Args:
            collection: Where to look.
            text: Is embedded, unless there is a vector or a picture, and searched for by its words.
            vector: Of the collection's dimensions.
            image: Bytes, a path or an open file; excludes `vector`. For collections whose embedding
                application embeds pictures.
            explain: Tell the times of all stages.
            consistency_token: A write that must be seen; None = the newest the client knows of
                in this collection; an empty text = none.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **search: See `SearchOptions`.
        """
        request, pictures = build_search(collection, text, vector, image, search, explain=explain)
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._retrieval.search(request, pictures, consistency_token, options)
        )

    def search_batch(
        self,
        collection: str,
        queries: Iterable[str | Sequence[float] | ImageInput],
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **search: Unpack[SearchOptions],
    ) -> SearchBatchResult:
        """Many searches in one call; one that fails has its error in its place.

        A query is a text, a vector, or a picture as bytes, as a `Path` or as an open file.
        """
        request, pictures = build_search_batch(collection, queries, search)
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._retrieval.search_batch(request, pictures, consistency_token, options)
        )

    @overload
    def ask(
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
    def ask(
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
    ) -> AnswerStream: ...
    def ask(
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
    ) -> Answer | AnswerStream:
        """Answers a question from the documents of a collection, with citations.

        Args:
            question: In plain words.
            collection: Which documents.
            stream: Give back the events as they come: passages, text, the answer. Nothing is sent
                before the first is asked for.
            conversation: Name of a conversation, chosen by the caller: earlier turns count, and
                this one is added.
            model: Application to answer with; None = the service's default.
            explain: Tell the times of all stages.
            consistency_token: As for `search`.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **ask: See `AskOptions`.
        """
        request = build_ask(
            question, collection, ask, conversation=conversation, model=model, explain=explain
        )
        options = CallOptions(None, timeout_s, request_id)
        answers = AnswerStream(self._connection, self._rag.ask(request, consistency_token, options))
        if stream:
            return answers
        with answers:
            return answers.result()

    def ask_batch(
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
        """Answers many questions in one call; one that fails has its error in its place."""
        request = build_ask_batch(questions, collection, ask, model=model)
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._rag.ask_batch(request, consistency_token, options))

    def conversation(
        self, conversation: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Conversation:
        """What a conversation remembers."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._rag.conversation(conversation, options))

    def delete_conversation(
        self, conversation: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> None:
        """Forgets a conversation."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._rag.delete_conversation(conversation, options))

    def rag_load(self, *, timeout_s: float | None = None, request_id: str | None = None) -> RagLoad:
        """What the RAG service is doing right now."""
        return self._connection.run(self._rag.load(CallOptions(None, timeout_s, request_id)))

    def consistency_token(self, collection: str | None = None) -> str:
        """The newest token that the client has of a collection (None = of all), or an empty text.

        Given to another client's read, it makes that read see this client's writes.
        """
        return self._retrieval.tokens.newest(collection)

    def close(self) -> None:
        """Cancels what is under way and closes the connections. May be called twice."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.settings.target!r})"
