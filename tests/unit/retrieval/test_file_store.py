"""Limits of the file store, and what it forgets by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from orrery.v1 import file_pb2 as pb
from orrery.v1 import retrieval_pb2
from services.retrieval.config import FileLimits, RetrievalConfig
from services.retrieval.files import Attachment, FileInfo, FileStore
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


async def test_start_spares_attachments_of_a_collection_made_just_then(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        site(redis.url, tmp_path / "one") as starting,
        site(redis.url, tmp_path / "two") as other,
    ):
        service = starting.server.service
        attached_collections = service.files.attached_collections
        made: list[tuple[str, str]] = []

        async def after_another_was_made() -> set[str]:
            name = await other.client.collection()
            request = pb.CreateFileRequest(name="a.txt", data=b"words")
            file_id = (await other.client.files.CreateFile(request)).file.id
            attach = pb.AttachFileRequest(collection=name, file_id=file_id)
            await other.client.files.AttachFile(attach)
            made.append((name, file_id))
            return await attached_collections()

        monkeypatch.setattr(service.files, "attached_collections", after_another_was_made)
        await service.attachments.forget_orphans()
        [(name, file_id)] = made
        assert (await service.attachments.get(name, file_id)).error is None


async def test_deleting_documents_again_forgets_attachments_that_were_left(
    redis: RedisServer, tmp_path: Path
) -> None:
    file_id = "file-" + "0" * 24
    async with site(redis.url, tmp_path / "data") as alone:
        name, service = await alone.client.collection(), alone.server.service
        # As a delete leaves it that is cut off by a loss of the store.
        view = await service.collections.find(name)
        await service.files.attach(view.id, Attachment(file_id, 1, 10, 1_700_000_000_000, {}))
        request = retrieval_pb2.DeleteRequest(collection=name, document_ids=[file_id])
        assert (await alone.client.stub.Delete(request)).num_deleted == 0
        assert await service.attachments.page(name, None, 10) == ([], False)


async def test_file_added_while_a_page_is_read_repeats_no_other(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.connect(redis.url)
    files = FileStore(client, FileLimits())
    made = []
    for number in range(9):
        made.append(await files.create(f"{number}", "odd" * (number % 2), b"x"))
        await asyncio.sleep(0.002)  # so that each has a time of its own
    infos = files._infos

    async def and_another(ids: list[str]) -> list[FileInfo]:
        await files.create("late", "", b"x")
        return await infos(ids)

    monkeypatch.setattr(files, "_infos", and_another)
    page, more = await files.page(None, 3, "odd")
    assert (page, more) == ([made[7], made[5], made[3]], True)
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
