"""Limits of the file store, and what it forgets by itself."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from orrery.v1 import file_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.retrieval.config import FileLimits, RetrievalConfig
from services.retrieval.files import Attachment, FileStore
from services.runtime import store
from tests.contract.served import refusal
from tests.fakes.redis_server import RedisServer
from tests.unit.retrieval.conftest import site


async def test_files_are_limited_in_number_and_total_size(
    redis: RedisServer, tmp_path: Path
) -> None:
    limits = FileLimits(max_file_bytes=60, max_files=3, max_total_bytes=100)
    config = RetrievalConfig(files=limits)
    async with site(redis.url, tmp_path / "data", config) as alone:

        async def create(size: int) -> str:
            request = pb.CreateFileRequest(name="a.txt", data=bytes(size))
            return (await alone.client.files.CreateFile(request)).file.id

        async def refused(size: int) -> str:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await create(size)
            return refusal(caught.value).reason

        assert await refused(61) == "INVALID_REQUEST"
        first = await create(60)
        assert await refused(41) == "OVERLOADED"
        await create(20)
        await create(20)
        assert await refused(1) == "OVERLOADED"
        await alone.client.files.DeleteFile(pb.DeleteFileRequest(id=first))
        await create(60)


async def test_upload_to_a_store_that_is_full_is_unavailable(
    redis: RedisServer, tmp_path: Path
) -> None:
    client = store.connect(redis.url)
    async with site(redis.url, tmp_path / "data") as alone:
        request = pb.CreateFileRequest(name="a.txt", data=b"words")
        await client.config_set("maxmemory", "1")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await alone.client.files.CreateFile(request)
        assert refusal(caught.value).code is grpc.StatusCode.UNAVAILABLE
        await client.config_set("maxmemory", "0")
        await alone.client.files.CreateFile(request)
    await client.aclose()


async def test_attachments_of_collections_that_are_gone_are_forgotten_at_start(
    redis: RedisServer, tmp_path: Path
) -> None:
    client = store.connect(redis.url)
    files = FileStore(client, FileLimits())
    attachment = Attachment("file-" + "0" * 24, 1, 10, 1_700_000_000_000, {"a": ("x", "y")})
    await files.attach("gone", attachment)
    assert await files.attachment("gone", attachment.file_id) == attachment
    async with site(redis.url, tmp_path / "data"):
        assert await files.attached_collections() == set()
    assert await client.keys("orrery:files:*") == []
    await client.aclose()


async def test_deleting_a_collection_leaves_no_key_of_its_files(
    redis: RedisServer, tmp_path: Path
) -> None:
    client = store.connect(redis.url)
    async with site(redis.url, tmp_path / "data") as alone:
        name = await alone.client.collection()
        request = pb.CreateFileRequest(name="a.txt", data=b"words")
        made = (await alone.client.files.CreateFile(request)).file
        await alone.client.files.AttachFile(pb.AttachFileRequest(collection=name, file_id=made.id))
        delete = retrieval_pb2.DeleteCollectionRequest(name=name)
        await alone.client.stub.DeleteCollection(delete)
        await alone.client.files.DeleteFile(pb.DeleteFileRequest(id=made.id))
        assert await client.get("orrery:files:bytes") == b"0"
        await client.delete("orrery:files:bytes")
        assert await client.keys("orrery:files:*") == []
    await client.aclose()
