"""Two replicas on one log: a read with a token sees the write on either, and both agree."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orrery.v1 import file_pb2
from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import ServedRetrieval, ids, text, vectors
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import Site, site

INTERLEAVINGS = 300


@pytest.fixture
async def pair(redis: RedisServer, tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    """Two replicas that share Redis and the folder of snapshots."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(site(redis.url, tmp_path / "data"))
        second = await stack.enter_async_context(site(redis.url, tmp_path / "data"))
        yield first, second


async def round_of(client: ServedRetrieval, name: str, document_id: str, token: str) -> int | None:
    request = pb.GetRequest(collection=name, document_ids=[document_id], consistency_token=token)
    documents = (await client.stub.Get(request)).documents
    return int(documents[0].metadata["round"].number_value) if documents else None


async def test_own_writes_are_read_with_the_token_on_any_replica(
    pair: tuple[Site, Site],
) -> None:
    rng = random.Random(11)
    clients = [one.client for one in pair]
    name = await clients[0].vectors_collection()
    expected: dict[str, int] = {}
    for number in range(INTERLEAVINGS):
        writer, reader = rng.choice(clients), rng.choice(clients)
        document_id = f"d{rng.randrange(12)}"
        if rng.random() < 0.3:
            request = pb.DeleteRequest(collection=name, document_ids=[document_id])
            deleted = await writer.stub.Delete(request)
            token = deleted.consistency_token
            assert deleted.num_deleted == (document_id in expected)
            expected.pop(document_id, None)
        else:
            token = await writer.put(name, [_vector(document_id, rng, number)])
            expected[document_id] = number
        assert await round_of(reader, name, document_id, token) == expected.get(document_id)
    for client in clients:
        listed = await client.stub.ListDocuments(
            pb.ListDocumentsRequest(collection=name, consistency_token=token)
        )
        kept = {one.id: int(one.metadata["round"].number_value) for one in listed.documents}
        assert kept == expected
    for _ in range(20):
        vector = [rng.gauss(0, 1) for _ in range(4)]
        first, second = [
            [(hit.chunk.id, hit.score) for hit in await client.search(name, token, vector=vector)]
            for client in clients
        ]
        assert [one for one, _ in first] == [one for one, _ in second]
        assert [score for _, score in first] == pytest.approx([score for _, score in second])


async def test_collection_made_by_one_is_found_by_the_other_without_a_token(
    pair: tuple[Site, Site],
) -> None:
    one, other = pair[0].client, pair[1].client
    for _ in range(20):
        name = await one.collection()
        token = await other.put(name, [text("a", "words")])
        assert await other.search(name, token, text="words")


async def test_unchanged_is_known_across_replicas(pair: tuple[Site, Site]) -> None:
    one, other = pair
    name = await one.client.collection()
    for number in range(10):
        documents = [text("a", f"words {number}")]
        await one.client.put(name, documents)
        [answer] = await other.client.upsert(name, documents)
        assert answer.status == pb.UPSERT_STATUS_UNCHANGED
    assert other.embedding.num_texts == 0


async def test_files_are_shared(pair: tuple[Site, Site]) -> None:
    one, other = pair[0].client, pair[1].client
    name = await one.collection()
    made = await one.files.CreateFile(file_pb2.CreateFileRequest(name="a.txt", data=b"words"))
    attached = await other.files.AttachFile(
        file_pb2.AttachFileRequest(collection=name, file_id=made.file.id)
    )
    token = attached.consistency_token
    assert ids(await one.search(name, token, text="words")) == [f"{made.file.id}#0"]
    listed = await one.files.ListAttachments(file_pb2.ListAttachmentsRequest(collection=name))
    assert list(listed.attachments) == [attached.attachment]


def _vector(document_id: str, rng: random.Random, number: int) -> pb.Document:
    return vectors(document_id, [rng.gauss(0, 1) for _ in range(4)], round=number)
