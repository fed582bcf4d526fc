"""Redis goes away and comes back: reads go on, writes are refused, and it recovers by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orrery.v1 import file_pb2
from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import ids, text
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import Site, site


async def test_reads_go_on_and_writes_are_unavailable_until_it_is_back(
    alone: Site, redis: RedisServer
) -> None:
    client = alone.client
    name = await client.collection()
    token = await client.put(name, [text("a", "some words"), text("b", "other words")])
    await client.search(name, token, text="some")  # it has read so far when Redis goes away
    redis.kill()
    assert ids(await client.search(name, token, text="some")) == ["a#0", "b#0"]
    got = await client.stub.Get(pb.GetRequest(collection=name, document_ids=["a"]))
    assert len(got.documents) == 1
    writes = [
        client.upsert(name, [text("c", "more")]),
        client.stub.Delete(pb.DeleteRequest(collection=name, document_ids=["a"])),
        client.stub.CreateCollection(pb.CreateCollectionRequest(name="another")),
        client.stub.UpdateCollection(pb.UpdateCollectionRequest(name=name, title="x")),
        client.stub.DeleteCollection(pb.DeleteCollectionRequest(name=name)),
        client.files.CreateFile(file_pb2.CreateFileRequest(name="a.txt", data=b"words")),
    ]
    for write in writes:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write
        refused = refusal(caught.value)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_DOWN")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.search("absent", text="some")
    assert refusal(caught.value).reason == "COLLECTION_NOT_FOUND"
    health = health_pb2_grpc.HealthStub(client.channel)
    status = (await health.Check(health_pb2.HealthCheckRequest())).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert not (await client.load()).log_available
    redis.restart()
    await _until_available(client)
    token = await client.put(name, [text("c", "some more")])
    assert set(ids(await client.search(name, token, text="some"))) == {"a#0", "b#0", "c#0"}


async def test_replica_started_again_has_everything(redis: RedisServer, tmp_path: Path) -> None:
    async with site(redis.url, tmp_path / "data") as first:
        name = await first.client.collection(title="kept")
        await first.client.put(name, [text(f"d{n}", f"words number {n}") for n in range(50)])
        await first.client.stub.Snapshot(pb.SnapshotRequest())
        token = await first.client.put(name, [text("later", "written after the snapshot")])
        before = await first.client.search(name, token, text="number 7 after", k=20)
    redis.restart()
    async with site(redis.url, tmp_path / "data") as second:
        after = await second.client.search(name, token, text="number 7 after", k=20)
        assert ids(after) == ids(before)
        assert [hit.score for hit in after] == pytest.approx([hit.score for hit in before])
        found = await second.client.stub.GetCollection(pb.GetCollectionRequest(name=name))
        assert (found.collection.title, found.collection.num_documents) == ("kept", 51)


async def _until_available(client: object) -> None:
    for _ in range(500):
        if (await client.load()).log_available:  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not recover")
