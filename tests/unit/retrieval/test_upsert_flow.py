"""What an Upsert stream costs, and how much of it is under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from orrery.v1 import retrieval_pb2 as pb
from services.retrieval import ingestion, messages
from services.retrieval.config import RetrievalConfig, WorkConfig
from services.retrieval.ingestion import UpsertItem
from services.retrieval.raw_documents import RawDocument, content_hash
from services.runtime.errors import DependencyDown, Overloaded
from tests.contract.retrieval_served import text, vectors
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import Site, site, until

WINDOW = WorkConfig().max_stream_documents


async def test_unchanged_documents_are_not_embedded_again(alone: Site) -> None:
    name = await alone.client.collection()
    documents = [text(f"d{number}", f"words {number}") for number in range(20)]
    await alone.client.put(name, documents)
    embedded = alone.embedding.num_texts
    answers = await alone.client.upsert(name, documents)
    assert {answer.status for answer in answers} == {pb.UPSERT_STATUS_UNCHANGED}
    assert {answer.num_chunks for answer in answers} == {1}
    assert all(answer.consistency_token for answer in answers)
    assert alone.embedding.num_texts == embedded


async def test_documents_of_a_stream_are_embedded_side_by_side(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 0.05
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, alone.embedding.num_running)
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    await alone.client.put(name, [text(f"d{number}", f"words {number}") for number in range(30)])
    watcher.cancel()
    assert 1 < most <= WINDOW + 2


async def test_fast_sender_is_held_up_by_slow_work(
    alone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 0.02
    num_documents, words = 60, "w" * 120_000
    sent = read = answered = furthest_sent = furthest_read = 0
    upsert_item = messages.upsert_item

    def counted(request: pb.UpsertRequest) -> UpsertItem:
        nonlocal read, furthest_read
        read += 1
        furthest_read = max(furthest_read, read - answered)
        return upsert_item(request)

    monkeypatch.setattr(messages, "upsert_item", counted)

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        nonlocal sent, furthest_sent
        for number in range(num_documents):
            document = pb.Document(id=f"d{number}")
            document.chunks.chunks.add(text=f"{number} {words}")
            yield pb.UpsertRequest(collection=name, document=document)
            sent += 1
            furthest_sent = max(furthest_sent, sent - answered)

    async for answer in alone.client.stub.Upsert(requests()):
        assert answer.status == pb.UPSERT_STATUS_ADDED
        answered += 1
    assert answered == num_documents
    assert furthest_read <= 2 * WINDOW + 4  # at work, and answered but not yet received
    assert furthest_sent < num_documents - WINDOW  # the rest is what connections buffer


async def test_reader_that_does_not_read_answers_stops_the_work(alone: Site) -> None:
    name = await alone.client.collection()

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        for number in range(3000):
            document = text("d" * 500 + str(number), "words")
            yield pb.UpsertRequest(collection=name, document=document)

    call = alone.client.stub.Upsert(requests())
    before = -1
    while before != alone.embedding.num_texts:  # until nothing happens any more
        before = alone.embedding.num_texts
        await asyncio.sleep(0.3)
    assert before < 2000
    call.cancel()


async def test_all_streams_share_the_places(redis: RedisServer, tmp_path: object) -> None:
    config = RetrievalConfig(work=WorkConfig(max_documents=3))
    async with site(redis.url, tmp_path / "data", config) as alone:  # type: ignore[operator]
        name = await alone.client.collection()
        alone.embedding.delay_s = 0.02
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, alone.embedding.num_running)
                await asyncio.sleep(0.002)

        watcher = asyncio.create_task(watch())
        streams = [
            [text(f"s{stream}-{number}", "words") for number in range(10)] for stream in range(4)
        ]
        await asyncio.gather(*(alone.client.put(name, documents) for documents in streams))
        watcher.cancel()
        assert most == 3


async def test_busy_embedding_service_holds_documents_up(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.failure = Overloaded("busy", retry_after_s=0.1)
    put = asyncio.create_task(alone.client.put(name, [text("a", "words")]))
    await asyncio.sleep(0.3)
    assert not put.done()
    alone.embedding.failure = None
    assert await put


async def test_embedding_service_that_is_away_ends_the_stream(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.failure = DependencyDown("away")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.client.upsert(name, [text("a", "words")])
    refused = refusal(caught.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_DOWN")
    alone.embedding.failure = None
    assert await alone.client.put(name, [text("a", "words")])


async def test_cancelled_stream_stops_embedding_and_frees_its_places(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 30.0
    for _ in range(6):  # more than there are places for
        calls = [_endless(alone, name, number) for number in range(WINDOW)]
        await until(lambda: alone.embedding.num_running >= 1)
        for call in calls:
            call.cancel()
        await until(lambda: alone.embedding.num_running == 0)
    alone.embedding.delay_s = 0.0
    assert await alone.client.put(name, [text("after", "words")])


async def test_deadline_of_a_stream_names_no_document(alone: Site) -> None:
    name = await alone.client.collection()
    alone.embedding.delay_s = 30.0
    call = _endless(alone, name, 0, timeout_ms=200)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"
    await until(lambda: alone.embedding.num_running == 0)


async def test_last_of_a_document_stays_though_the_first_takes_longer_to_hash(
    alone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(raw: RawDocument) -> str:
        time.sleep(0.2 if raw.num_bytes > 1000 else 0)
        return content_hash(raw)

    monkeypatch.setattr(ingestion, "content_hash", slowly)
    name = await alone.client.collection()
    long = pb.Document(id="a")
    for number in range(3):
        long.chunks.chunks.add(text=f"{number} {'w' * 100_000}")
    answers = await alone.client.upsert(name, [long, text("a", "short")])
    assert [one.status for one in answers] == [pb.UPSERT_STATUS_ADDED, pb.UPSERT_STATUS_REPLACED]
    request = pb.GetRequest(
        collection=name,
        document_ids=["a"],
        include_chunks=True,
        consistency_token=answers[-1].consistency_token,
    )
    [stored] = (await alone.client.stub.Get(request)).documents
    assert [chunk.text for chunk in stored.chunks] == ["short"]


async def test_large_messages_of_vectors_are_read_and_checked_as_small_ones(alone: Site) -> None:
    name = await alone.client.vectors_collection()
    rows = [[1.0, float(number), 0.0, 2.0] for number in range(12_000)]
    assert vectors("big", *rows).ByteSize() > 256 << 10
    token = await alone.client.put(name, [vectors("big", *rows)])
    [hit] = await alone.client.search(name, token, vector=rows[3], k=1)
    assert hit.chunk.id == "big#3"
    rows[11_000] = [0.0] * 4
    [answer] = await alone.client.upsert(name, [vectors("bad", *rows)])
    assert answer.error.field == "document.chunks[11000].vector"


async def test_collection_deleted_under_a_stream_ends_it(alone: Site) -> None:
    name = await alone.client.collection()
    more = asyncio.Event()

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        yield pb.UpsertRequest(collection=name, document=text("a", "words"))
        await more.wait()
        yield pb.UpsertRequest(collection=name, document=text("b", "words"))
        await asyncio.Event().wait()

    call = alone.client.stub.Upsert(requests())
    assert (await call.read()).status == pb.UPSERT_STATUS_ADDED
    await alone.client.stub.DeleteCollection(pb.DeleteCollectionRequest(name=name))
    await alone.client.stub.CreateCollection(pb.CreateCollectionRequest(name=name))
    more.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert refusal(caught.value).reason == "COLLECTION_NOT_FOUND"


def _endless(alone: Site, name: str, number: int, timeout_ms: int | None = None) -> object:
    """A stream with one document that never ends by itself."""

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        yield pb.UpsertRequest(collection=name, document=text(f"e{number}", "words"))
        await asyncio.Event().wait()

    metadata = () if timeout_ms is None else (("x-timeout-ms", str(timeout_ms)),)
    return alone.client.stub.Upsert(requests(), metadata=metadata)
