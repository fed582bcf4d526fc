"""Orrery's client: text generation, embeddings, retrieval and answers from documents, over gRPC.

    from orrery import Client, where

    with Client() as client:
        print(client.generate("Once upon a time", model="llama", max_tokens=64).text)

        client.ingest("./docs", collection="docs")
        for hit in client.search("docs", "storm damage", filter=where("year") >= 1900).hits:
            print(hit.score, hit.chunk.document_id, hit.chunk.text)
        answer = client.ask("Who commands the Veloria?", collection="docs")
        print(answer.text, [citation.quote for citation in answer.citations])

`client.collections` and `client.documents` manage what is searched. `AsyncClient` is the same for
asyncio. What can be raised is in `orrery.errors`, what is returned in `orrery.results`; `orrery.v1`
are the generated messages and stubs of the contract.
"""

from __future__ import annotations

from orrery.answers import AnswerStream, AsyncAnswerStream
from orrery.async_client import AsyncClient
from orrery.client import Client
from orrery.client_collections import AsyncCollections, Collections
from orrery.client_documents import AsyncDocuments, Documents
from orrery.documents import Document, DocumentChunk, DocumentSource, MetadataInput
from orrery.errors import (
    AlreadyExistsError,
    AuthenticationError,
    CancelledError,
    CollectionNotFoundError,
    ConnectionLostError,
    ContextTooLongError,
    DeadlineExceededError,
    DependencyDownError,
    InternalError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    NotReadyError,
    OrreryError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    ResourceNotFoundError,
    ServiceNotFoundError,
    UnavailableError,
)
from orrery.filter_syntax import parse_filter
from orrery.filters import Field, Filter, FilterValue, where
from orrery.ingest.progress import ProgressInput
from orrery.ingest.steps import IngestOptions
from orrery.requests.collections import CollectionOptions
from orrery.requests.embedding import EmbeddingInput, EmbeddingPurpose, RerankMethod
from orrery.requests.generation import Chat, PromptInput, SamplingOptions
from orrery.requests.rag import AnswerMode, AskOptions
from orrery.requests.search import SearchMode, SearchOptions
from orrery.results import (
    Abstention,
    Answer,
    AnswerBatch,
    AnswerDelta,
    AnswerEvent,
    Application,
    BatchResult,
    CacheGeometry,
    Choice,
    Chunk,
    Citation,
    Collection,
    CollectionConfig,
    Conversation,
    ConversationTurn,
    DeleteResult,
    DetokenizeResult,
    Embedding,
    EmbeddingLoad,
    EmbeddingModelInfo,
    EmbedResult,
    FileProblem,
    FinishReason,
    GenerationResult,
    Hit,
    IngestProgress,
    IngestReport,
    Load,
    Metadata,
    MetadataField,
    MetadataValue,
    ModelInfo,
    Passages,
    PositionLogprobs,
    RagLoad,
    RequestLimits,
    RerankedPassage,
    RerankResult,
    RetrievalLoad,
    ScoreResult,
    SearchBatchResult,
    SearchResult,
    SnapshotInfo,
    StageTiming,
    StoredDocument,
    StreamEvent,
    Timing,
    TokenizeResult,
    TokenLogprob,
    UpsertReport,
    UpsertResult,
    UpsertStatus,
    Usage,
)
from orrery.settings import ServiceNames
from orrery.streams import AsyncTextStream, TextStream
from orrery.uploads import AsyncUpsertStream, UpsertStream

__all__ = [
    "Abstention",
    "AlreadyExistsError",
    "Answer",
    "AnswerBatch",
    "AnswerDelta",
    "AnswerEvent",
    "AnswerMode",
    "AnswerStream",
    "Application",
    "AskOptions",
    "AsyncAnswerStream",
    "AsyncClient",
    "AsyncCollections",
    "AsyncDocuments",
    "AsyncTextStream",
    "AsyncUpsertStream",
    "AuthenticationError",
    "BatchResult",
    "CacheGeometry",
    "CancelledError",
    "Chat",
    "Choice",
    "Chunk",
    "Citation",
    "Client",
    "Collection",
    "CollectionConfig",
    "CollectionNotFoundError",
    "CollectionOptions",
    "Collections",
    "ConnectionLostError",
    "ContextTooLongError",
    "Conversation",
    "ConversationTurn",
    "DeadlineExceededError",
    "DeleteResult",
    "DependencyDownError",
    "DetokenizeResult",
    "Document",
    "DocumentChunk",
    "DocumentSource",
    "Documents",
    "EmbedResult",
    "Embedding",
    "EmbeddingInput",
    "EmbeddingLoad",
    "EmbeddingModelInfo",
    "EmbeddingPurpose",
    "Field",
    "FileProblem",
    "Filter",
    "FilterValue",
    "FinishReason",
    "GenerationResult",
    "Hit",
    "IngestOptions",
    "IngestProgress",
    "IngestReport",
    "InternalError",
    "InvalidRequestError",
    "Load",
    "Metadata",
    "MetadataField",
    "MetadataInput",
    "MetadataValue",
    "ModelInfo",
    "ModelNotFoundError",
    "NotFoundError",
    "NotReadyError",
    "OrreryError",
    "OverloadedError",
    "Passages",
    "PermissionDeniedError",
    "PositionLogprobs",
    "ProgressInput",
    "PromptInput",
    "RagLoad",
    "RateLimitedError",
    "RequestLimits",
    "RerankMethod",
    "RerankResult",
    "RerankedPassage",
    "ResourceNotFoundError",
    "RetrievalLoad",
    "SamplingOptions",
    "ScoreResult",
    "SearchBatchResult",
    "SearchMode",
    "SearchOptions",
    "SearchResult",
    "ServiceNames",
    "ServiceNotFoundError",
    "SnapshotInfo",
    "StageTiming",
    "StoredDocument",
    "StreamEvent",
    "TextStream",
    "Timing",
    "TokenLogprob",
    "TokenizeResult",
    "UnavailableError",
    "UpsertReport",
    "UpsertResult",
    "UpsertStatus",
    "UpsertStream",
    "Usage",
    "parse_filter",
    "where",
]
