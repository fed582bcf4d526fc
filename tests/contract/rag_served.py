"""The RAG application that contract tests talk to: in this process or on the platform."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.rpc import error_details_pb2, status_pb2

from orrery.v1 import embedding_pb2, generation_pb2, retrieval_pb2
from orrery.v1 import rag_pb2 as pb
from orrery.v1.embedding_pb2_grpc import EmbeddingServiceStub
from orrery.v1.generation_pb2_grpc import GenerationServiceStub
from orrery.v1.rag_pb2_grpc import RagServiceStub
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.generation.backend import Backend
from services.generation.config import GenerationConfig
from tests.contract.served import greedy, is_idle, text
from tests.fakes.rag_stack import rag_stack

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ServedRag:
    """The RAG application and those that it asks."""

    rag: grpc.aio.Channel
    retrieval: grpc.aio.Channel
    generation: grpc.aio.Channel
    routed: bool  # by `application` metadata

    @property
    def stub(self) -> RagServiceStub:
        return RagServiceStub(self.rag)

    @property
    def documents(self) -> RetrievalServiceStub:
        return RetrievalServiceStub(self.retrieval)

    def at(self, application: str) -> Metadata:
        """The metadata that reaches an application."""
        return (("application", application),) if self.routed else ()

    async def ask(self, request: pb.AskRequest) -> list[pb.AskResponse]:
        """All messages of one answer."""
        return [message async for message in self.stub.Ask(request, metadata=self.at("rag"))]

    async def result(self, request: pb.AskRequest) -> pb.AskResult:
        """The last message."""
        return (await self.ask(request))[-1].result

    async def fill(self, collection: str, documents: Sequence[retrieval_pb2.Document]) -> str:
        """Makes a collection of the documents; returns the token to read it with."""
        await self.documents.CreateCollection(
            retrieval_pb2.CreateCollectionRequest(name=collection), metadata=self.at("retrieval")
        )
        requests = [
            retrieval_pb2.UpsertRequest(collection=collection, document=document)
            for document in documents
        ]
        token = ""
        async for answer in self.documents.Upsert(iter(requests), metadata=self.at("retrieval")):
            assert not answer.HasField("error"), answer
            token = answer.consistency_token
        return token

    async def drop(self, collection: str) -> None:
        await self.documents.DeleteCollection(
            retrieval_pb2.DeleteCollectionRequest(name=collection), metadata=self.at("retrieval")
        )

    @asynccontextmanager
    async def busy_model(self) -> AsyncIterator[None]:
        """The model's batch is full of long completions but for one place: whoever comes with
        more than one sample is let in, and has to wait."""
        stub, metadata = GenerationServiceStub(self.generation), self.at("llama")
        info = await stub.GetModel(generation_pb2.GetModelRequest(), metadata=metadata)
        long = generation_pb2.GenerateRequest(
            prompt=text("The observatory of"), sampling=greedy(max_tokens=900)
        )
        calls = [stub.Generate(long, metadata=metadata) for _ in range(info.limits.max_running - 1)]
        try:
            await asyncio.gather(*(call.read() for call in calls))
            yield
        finally:
            for call in calls:
                call.cancel()

    async def num_running(self) -> dict[str, int]:
        """What each service is doing right now, by its own word."""
        rag = await self.stub.GetLoad(pb.RagServiceGetLoadRequest(), metadata=self.at("rag"))
        retrieval = await self.documents.GetLoad(
            retrieval_pb2.RetrievalServiceGetLoadRequest(), metadata=self.at("retrieval")
        )
        embedding = await EmbeddingServiceStub(self.retrieval).GetLoad(
            embedding_pb2.EmbeddingServiceGetLoadRequest(), metadata=self.at("embedding")
        )
        generation = await GenerationServiceStub(self.generation).GetLoad(
            generation_pb2.GetLoadRequest(), metadata=self.at("llama")
        )
        return {
            "rag": rag.num_running,
            "retrieval": retrieval.num_running + retrieval.num_waiting_searches,
            "embedding": embedding.num_running + embedding.num_running_inputs,
            "generation": 0 if is_idle(generation) else 1 + generation.num_running,
        }

    async def wait_until_idle(self, limit_s: float) -> dict[str, int]:
        """What runs once nothing does, or as it is when time is up."""
        end = time.monotonic() + limit_s
        while True:
            running = await self.num_running()
            if not any(running.values()) or time.monotonic() > end:
                return running
            await asyncio.sleep(0.02)


@asynccontextmanager
async def in_process(
    folder: Path, backend: Backend, config: GenerationConfig
) -> AsyncIterator[ServedRag]:
    async with rag_stack(folder, backend, config) as stack:
        yield ServedRag(stack.rag, stack.retrieval, stack.generation, routed=False)


@asynccontextmanager
async def on_platform(target: str) -> AsyncIterator[ServedRag]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield ServedRag(channel, channel, channel, routed=True)


def stage_of(error: grpc.aio.AioRpcError) -> str:
    """The stage that an error names; empty = none."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.metadata["stage"])


def text_document(document_id: str, title: str, text: str) -> retrieval_pb2.Document:
    return retrieval_pb2.Document(id=document_id, title=title, text=text)


def file_document(name: str, text: str) -> retrieval_pb2.Document:
    file = retrieval_pb2.FileContent(data=text.encode(), name=name)
    return retrieval_pb2.Document(id=name, file=file)
