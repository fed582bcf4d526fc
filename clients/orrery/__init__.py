"""Orrery's client: text generation over gRPC.

    from orrery import Client

    with Client() as client:
        print(client.generate("Once upon a time", model="llama", max_tokens=64).text)

`AsyncClient` is the same for asyncio. What can be raised is in `orrery.errors`, what is returned in
`orrery.results`; `orrery.v1` are the generated messages and stubs of the contract.
"""

from __future__ import annotations

from orrery.async_client import AsyncClient
from orrery.client import Client
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
from orrery.requests.generation import Chat, PromptInput, SamplingOptions
from orrery.results import (
    Application,
    BatchResult,
    CacheGeometry,
    Choice,
    DetokenizeResult,
    FinishReason,
    GenerationResult,
    Load,
    ModelInfo,
    PositionLogprobs,
    RequestLimits,
    ScoreResult,
    StageTiming,
    StreamEvent,
    Timing,
    TokenizeResult,
    TokenLogprob,
    Usage,
)
from orrery.streams import AsyncTextStream, TextStream

__all__ = [
    "AlreadyExistsError",
    "Application",
    "AsyncClient",
    "AsyncTextStream",
    "AuthenticationError",
    "BatchResult",
    "CacheGeometry",
    "CancelledError",
    "Chat",
    "Choice",
    "Client",
    "CollectionNotFoundError",
    "ConnectionLostError",
    "ContextTooLongError",
    "DeadlineExceededError",
    "DependencyDownError",
    "DetokenizeResult",
    "FinishReason",
    "GenerationResult",
    "InternalError",
    "InvalidRequestError",
    "Load",
    "ModelInfo",
    "ModelNotFoundError",
    "NotFoundError",
    "NotReadyError",
    "OrreryError",
    "OverloadedError",
    "PermissionDeniedError",
    "PositionLogprobs",
    "PromptInput",
    "RateLimitedError",
    "RequestLimits",
    "ResourceNotFoundError",
    "SamplingOptions",
    "ScoreResult",
    "ServiceNotFoundError",
    "StageTiming",
    "StreamEvent",
    "TextStream",
    "Timing",
    "TokenLogprob",
    "TokenizeResult",
    "UnavailableError",
    "Usage",
]
