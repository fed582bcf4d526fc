"""What a contract test of retrieval talks to: in this process, or on the running platform."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from orrery.v1 import retrieval_pb2 as pb
from orrery.v1.file_pb2_grpc import FileServiceStub
from orrery.v1.retrieval_pb2_grpc import RetrievalServiceStub
from services.runtime.message_size import MAX_MESSAGE_BYTES
from tests.fakes.redis_server import redis_server
from tests.fakes.retrieval_server import RunningRetrieval, retrieval_server_in_thread

APPLICATION = "retrieval"
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


@dataclass(slots=True)
class ServedRetrieval:
    """A retrieval application. `made` are the collections to remove afterwards."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]
    made: list[str] = field(default_factory=list)

    @property
    def stub(self) -> RetrievalServiceStub:
        return RetrievalServiceStub(self.channel)

    @property
    def files(self) -> FileServiceStub:
        return FileServiceStub(self.channel)

    async def collection(self, **fields: object) -> str:
        """A new collection of a name of its own."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        request = pb.CreateCollectionRequest(name=name, **fields)
        await self.stub.CreateCollection(request, metadata=self.metadata)
        self.made.append(name)
        return name

    async def vectors_collection(self, dimensions: int = 4) -> str:
        """A new collection whose documents bring their vectors."""
        config = pb.CollectionConfig(dimensions=dimensions, embedding_application="none")
        return await self.collection(config=config)

    async def upsert(
        self, collection: str, documents: Iterable[pb.Document]
    ) -> list[pb.UpsertResponse]:
        """All documents through one stream; one answer each."""

        async def requests() -> AsyncIterator[pb.UpsertRequest]:
            name = collection
            for document in documents:
                yield pb.UpsertRequest(collection=name, document=document)
                name = ""

        call = self.stub.Upsert(requests(), metadata=self.metadata)
        return [response async for response in call]

    async def put(self, collection: str, documents: Iterable[pb.Document]) -> str:
        """The same, all of which must go in. Returns the last answer's token."""
        responses = await self.upsert(collection, documents)
        failed = [response.error for response in responses if response.HasField("error")]
        assert not failed, failed
        return responses[-1].consistency_token

    async def search(self, collection: str, token: str = "", **fields: object) -> list[pb.Hit]:
        """`text`, `vector` are the query's, `explain` the request's, the rest are options."""
        query = pb.SearchQuery(text=fields.pop("text", ""), vector=fields.pop("vector", ()))
        request = pb.SearchRequest(
            collection=collection,
            query=query,
            options=pb.SearchOptions(**fields),
            consistency_token=token,
        )
        response = await self.stub.Search(request, metadata=self.metadata)
        return list(response.hits)

    async def load(self) -> pb.RetrievalServiceGetLoadResponse:
        request = pb.RetrievalServiceGetLoadRequest()
        response: pb.RetrievalServiceGetLoadResponse = await self.stub.GetLoad(
            request, metadata=self.metadata
        )
        return response

    async def wait_until_idle(self, limit_s: float) -> pb.RetrievalServiceGetLoadResponse:
        """The load once nothing runs, or as it is when time is up."""
        end = time.monotonic() + limit_s
        while True:
            load = await self.load()
            if is_idle(load) or time.monotonic() > end:
                return load
            await asyncio.sleep(0.02)

    async def clean(self) -> None:
        """Removes what was made."""
        for name in self.made:
            try:
                request = pb.DeleteCollectionRequest(name=name)
                await self.stub.DeleteCollection(request, metadata=self.metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:  # the test removed it itself
                    raise
        self.made.clear()


def is_idle(load: pb.RetrievalServiceGetLoadResponse) -> bool:
    """No call runs, no search waits."""
    return (load.num_running, load.num_waiting_searches) == (0, 0)


@contextmanager
def retrieval_in_process(folder: Path) -> Iterator[RunningRetrieval]:
    """The real service with the real embedding model, over a real redis-server."""
    with (
        redis_server(folder / "redis") as redis,
        retrieval_server_in_thread(redis.url, folder / "data", model=True) as server,
    ):
        yield server


@asynccontextmanager
async def served_retrieval(target: str, *, platform: bool) -> AsyncIterator[ServedRetrieval]:
    """What listens at `target`. Afterwards nothing may be left running in it."""
    metadata = (("application", APPLICATION),) if platform else ()
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        served = ServedRetrieval(channel, metadata)
        yield served
        await served.clean()
        load = await served.wait_until_idle(limit_s=10.0)
        assert is_idle(load), f"something is still held: {load}"


# --- words of tests ---------------------------------------------------------------------------


def text(document_id: str, words: str, **metadata: object) -> pb.Document:
    """A document of plain text."""
    return pb.Document(id=document_id, text=words, metadata=values(metadata))


def file(document_id: str, data: bytes, name: str = "", media_type: str = "") -> pb.Document:
    """A document that is a file; its name is the id unless told otherwise."""
    content = pb.FileContent(data=data, name=name or document_id, media_type=media_type)
    return pb.Document(id=document_id, file=content)


def vectors(document_id: str, *rows: Iterable[float], **metadata: object) -> pb.Document:
    """A document of chunks with vectors; chunk n says `document_id n`."""
    chunks = [
        pb.ChunkContent(text=f"{document_id} {number}", vector=row)
        for number, row in enumerate(rows)
    ]
    contents = pb.ChunkContents(chunks=chunks)
    return pb.Document(id=document_id, chunks=contents, metadata=values(metadata))


def value(given: object) -> pb.MetadataValue:
    if isinstance(given, bool):
        return pb.MetadataValue(bool_value=given)
    if isinstance(given, str):
        return pb.MetadataValue(string_value=given)
    if isinstance(given, int | float):
        return pb.MetadataValue(number_value=given)
    assert isinstance(given, list)
    return pb.MetadataValue(string_list=pb.StringList(values=given))


def values(metadata: dict[str, object]) -> dict[str, pb.MetadataValue]:
    return {name: value(given) for name, given in metadata.items()}


def where(name: str, operator: str, *given: object) -> pb.Filter:
    """A comparison, its operator by the end of its name: "EQ", "IN"."""
    return pb.Filter(
        comparison=pb.Comparison(
            field=name,
            operator=pb.FilterOperator.Value(f"FILTER_OPERATOR_{operator}"),
            values=[value(one) for one in given],
        )
    )


def ids(hits: Iterable[pb.Hit]) -> list[str]:
    return [hit.chunk.id for hit in hits]
