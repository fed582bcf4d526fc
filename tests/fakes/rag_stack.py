"""Everything that answers questions, in this process: real RAG, retrieval, embedding, generation.

    async with rag_stack(tmp_path, backend, generation_config) as stack:
        stub = RagServiceStub(stack.rag)

Redis is a real one. Documents are embedded by hashes of words unless `model=True`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.generation.backend import Backend
from services.generation.config import GenerationConfig
from services.rag.config import RagConfig
from services.rag.peers import PeerServices
from services.rag.services import (
    Embedded,
    Embedder,
    Found,
    Piece,
    Sampling,
    Search,
    Services,
    TextPurpose,
    Tokenized,
)
from services.rag.types import Message
from services.runtime.peer import Caller, Peer
from tests.fakes.generation_server import generation_server
from tests.fakes.rag_server import CONFIG, RunningRag, rag_server
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.retrieval_server import RunningRetrieval, retrieval_server


@dataclass(frozen=True, slots=True)
class RagStack:
    """A channel to each server, and what is behind them."""

    rag: grpc.aio.Channel
    retrieval: grpc.aio.Channel  # embedding, too
    generation: grpc.aio.Channel
    running_rag: RunningRag
    running_retrieval: RunningRetrieval
    redis: RedisServer


@asynccontextmanager
async def rag_stack(
    folder: Path,
    backend: Backend,
    generation: GenerationConfig,
    config: RagConfig = CONFIG,
    *,
    model: bool = False,
) -> AsyncIterator[RagStack]:
    """Starts all servers; leaving stops them at once. The backend stays open."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(folder / "redis"))
        retrieval_at = await stack.enter_async_context(
            retrieval_server(redis.url, folder / "data", model=model)
        )
        generation_at = await stack.enter_async_context(generation_server(backend, generation))
        finding, writing = Peer(retrieval_at.target), Peer(generation_at.target)
        stack.push_async_callback(finding.close)
        stack.push_async_callback(writing.close)
        services = _SplitServices(
            PeerServices(finding, retrieval=config.retrieval_application),
            PeerServices(writing, retrieval=config.retrieval_application),
        )
        rag_at = await stack.enter_async_context(rag_server(services, config, redis_url=redis.url))
        targets = (rag_at.target, retrieval_at.target, generation_at.target)
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(target)) for target in targets
        ]
        yield RagStack(*channels, rag_at, retrieval_at, redis)


class _SplitServices:
    """Generation is on a server of its own here; on the platform one target reaches all."""

    def __init__(self, finding: Services, writing: Services) -> None:
        self._finding = finding
        self._writing = writing

    async def embedder(
        self, collection: str, consistency_token: str, caller: Caller
    ) -> Embedder | None:
        return await self._finding.embedder(collection, consistency_token, caller)

    async def embed(
        self, embedder: Embedder, texts: Sequence[str], purpose: TextPurpose, caller: Caller
    ) -> Embedded:
        return await self._finding.embed(embedder, texts, purpose, caller)

    async def search(self, search: Search, caller: Caller) -> Found:
        return await self._finding.search(search, caller)

    async def tokenize(
        self, application: str, chat: Sequence[Message], caller: Caller
    ) -> Tokenized:
        return await self._writing.tokenize(application, chat, caller)

    def generate(
        self, application: str, token_ids: Sequence[int], sampling: Sampling, caller: Caller
    ) -> AsyncGenerator[Piece, None]:
        return self._writing.generate(application, token_ids, sampling, caller)
