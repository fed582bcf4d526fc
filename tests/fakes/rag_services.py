"""The services that the RAG pipeline asks, scripted: what they find and reply is given.

A token is a word, or a line break. `open_calls` says what is under way: nothing may be left there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from orrery.v1 import retrieval_pb2
from services.rag.services import (
    Embedded,
    Embedder,
    Found,
    Piece,
    Sampling,
    Search,
    TextPurpose,
    Tokenized,
)
from services.rag.types import GenerationTiming, GenerationUsage, Message, Passage
from services.retrieval.ingest.lines import LineIndex
from services.runtime.peer import Caller

INDEX_GENERATION = 7
DEFAULT_EMBEDDER = Embedder("", 2)


def passage(
    text: str, *, document: str = "doc", ordinal: int = 0, title: str = "", start: int = 0
) -> Passage:
    """A passage with a hit behind it, as the retrieval service would give it."""
    chunk_id = f"{document}#{ordinal}"
    chunk = retrieval_pb2.Chunk(
        id=chunk_id,
        document_id=document,
        document_title=title,
        file_name=f"{document}.md",
        text=text,
        start=start,
        end=start + len(text),
        line_start=1,
        line_end=LineIndex(text).number(len(text)),
    )
    return Passage(
        chunk_id=chunk_id,
        document_id=document,
        document_title=title,
        file_name=chunk.file_name,
        text=text,
        score=0.5,
        start=start,
        line_start=chunk.line_start,
        line_end=chunk.line_end,
        source=retrieval_pb2.Hit(chunk=chunk, score=0.5),
    )


@dataclass(slots=True)
class FakeServices:
    """Replies come in turn, one for each completion; the last one is repeated."""

    passages: Sequence[Passage] = ()
    replies: Sequence[str] = ("The documents do not say.",)
    max_model_len: int = 1024
    embedding: Embedder | None = DEFAULT_EMBEDDER
    delays_s: dict[str, float] = field(default_factory=dict)  # by method; of generate: each word
    errors: dict[str, Exception] = field(default_factory=dict)
    open_calls: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    searches: list[Search] = field(default_factory=list)
    chats: list[list[Message]] = field(default_factory=list)
    embedded: list[tuple[str, tuple[str, ...], TextPurpose]] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    num_replies: int = 0

    async def embedder(
        self, collection: str, consistency_token: str, caller: Caller
    ) -> Embedder | None:
        with self._call("embedder"):
            await self._pause("embedder")
            return self.embedding

    async def embed(
        self, embedder: Embedder, texts: Sequence[str], purpose: TextPurpose, caller: Caller
    ) -> Embedded:
        with self._call("embed"):
            await self._pause("embed")
            self.embedded.append((embedder.application, tuple(texts), purpose))
            vectors = tuple((1.0, 0.0) if len(text) % 2 else (0.0, 1.0) for text in texts)
            return Embedded(vectors)

    async def search(self, search: Search, caller: Caller) -> Found:
        with self._call("search"):
            await self._pause("search")
            self.searches.append(search)
            rankings = tuple(tuple(self.passages[: search.k]) for _ in search.queries)
            return Found(rankings, INDEX_GENERATION, rerank_ns=5)

    async def tokenize(
        self, application: str, chat: Sequence[Message], caller: Caller
    ) -> Tokenized:
        with self._call("tokenize"):
            await self._pause("tokenize")
            self.chats.append(list(chat))
            return Tokenized(tuple(range(num_tokens(chat))), self.max_model_len)

    async def generate(
        self, application: str, token_ids: Sequence[int], sampling: Sampling, caller: Caller
    ) -> AsyncGenerator[Piece, None]:
        with self._call("generate"):
            self.samplings.append(sampling)
            count = 0
            for index in range(sampling.num_samples):
                reply = self.replies[min(self.num_replies, len(self.replies) - 1)]
                self.num_replies += 1
                words = reply.split(" ")
                for number, word in enumerate(words[: sampling.max_tokens], start=1):
                    await self._pause("generate")
                    count += 1
                    usage = GenerationUsage(len(token_ids), count)
                    timing = GenerationTiming(1, 2, 3)
                    truncated = number == sampling.max_tokens < len(words)
                    yield Piece(index, f"{word} ", "fake-model", usage, timing, truncated)

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls[name] += 1
        self.open_calls[name] += 1
        try:
            if name in self.errors:
                raise self.errors[name]
            yield
        finally:
            self.open_calls[name] -= 1

    async def _pause(self, name: str) -> None:
        await asyncio.sleep(self.delays_s.get(name, 0.0))


async def until(condition: Callable[[], object]) -> None:
    """Returns when `condition` holds."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.002)


def num_tokens(chat: Sequence[Message]) -> int:
    """Words, and one for each message's role."""
    return sum(1 + len(message.content.split()) for message in chat)
