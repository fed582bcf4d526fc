"""Files: uploaded, listed, attached to collections, detached, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from orrery.v1 import file_pb2 as pb
from orrery.v1 import retrieval_pb2
from tests.contract.retrieval_served import ServedRetrieval, text, values
from tests.contract.served import refusal

WORDS = b"The lighthouse of Brennar was built in 1872."


class Uploader:
    """Uploads files, and deletes what it uploaded."""

    def __init__(self, retrieval: ServedRetrieval) -> None:
        self._retrieval = retrieval
        self._ids: list[str] = []

    async def __call__(
        self, data: bytes = WORDS, name: str = "a.txt", purpose: str = "assistants"
    ) -> pb.StoredFile:
        request = pb.CreateFileRequest(name=name, purpose=purpose, data=data)
        files, metadata = self._retrieval.files, self._retrieval.metadata
        made = (await files.CreateFile(request, metadata=metadata)).file
        self._ids.append(made.id)
        return made

    async def clean(self) -> None:
        for file_id in self._ids:
            try:
                await self._retrieval.files.DeleteFile(
                    pb.DeleteFileRequest(id=file_id), metadata=self._retrieval.metadata
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise


@pytest.fixture
async def upload(retrieval: ServedRetrieval) -> AsyncIterator[Uploader]:
    uploader = Uploader(retrieval)
    yield uploader
    await uploader.clean()


async def attach(
    retrieval: ServedRetrieval, collection: str, file_id: str, **metadata: object
) -> pb.AttachFileResponse:
    request = pb.AttachFileRequest(
        collection=collection, file_id=file_id, metadata=values(metadata)
    )
    return await retrieval.files.AttachFile(request, metadata=retrieval.metadata)


async def refused(awaitable: object) -> tuple[str, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    said = refusal(caught.value)
    return said.reason, said.field


async def test_file_comes_back_as_it_was(retrieval: ServedRetrieval, upload: Uploader) -> None:
    data = bytes(range(256)) * 5
    made = await upload(data, "some name.bin", "user_data")
    assert made.id.startswith("file-")
    assert len(made.id) == 29
    assert (made.name, made.purpose, made.num_bytes) == ("some name.bin", "user_data", 1280)
    found = await retrieval.files.GetFile(
        pb.GetFileRequest(id=made.id), metadata=retrieval.metadata
    )
    assert found.file == made
    content = await retrieval.files.GetFileContent(
        pb.GetFileContentRequest(id=made.id), metadata=retrieval.metadata
    )
    assert content.data == data


async def test_files_are_listed_newest_first_in_pages(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    made = [await upload(purpose="test-list") for _ in range(7)]
    await upload(purpose="test-other")
    listed: list[pb.StoredFile] = []
    token = ""
    while True:
        request = pb.ListFilesRequest(page_size=3, page_token=token, purpose="test-list")
        page = await retrieval.files.ListFiles(request, metadata=retrieval.metadata)
        assert len(page.files) <= 3
        listed += page.files
        token = page.next_page_token
        if not token:
            break
    times = [one.created_at.ToMilliseconds() for one in listed]
    assert times == sorted(times, reverse=True)
    assert sorted(one.id for one in listed) == sorted(one.id for one in made)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"data": b""}, "data"),
        ({"data": bytes(9 << 20)}, "data"),
        ({"name": ""}, "name"),
        ({"name": "../../etc/passwd"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 2000}, "name"),
        ({"purpose": "x" * 100}, "purpose"),
    ],
)
async def test_file_that_cannot_be_kept_is_refused(
    retrieval: ServedRetrieval, fields: dict[str, object], field: str
) -> None:
    request = pb.CreateFileRequest(**{"name": "a.txt", "data": b"words", **fields})
    call = retrieval.files.CreateFile(request, metadata=retrieval.metadata)
    assert await refused(call) == ("INVALID_REQUEST", field)


async def test_unknown_and_malformed_ids_are_refused(retrieval: ServedRetrieval) -> None:
    files, metadata = retrieval.files, retrieval.metadata
    absent = "file-" + "0" * 24
    for file_id, reason in ((absent, "RESOURCE_NOT_FOUND"), ("../../etc", "INVALID_REQUEST")):
        calls = [
            files.GetFile(pb.GetFileRequest(id=file_id), metadata=metadata),
            files.GetFileContent(pb.GetFileContentRequest(id=file_id), metadata=metadata),
            files.DeleteFile(pb.DeleteFileRequest(id=file_id), metadata=metadata),
        ]
        for call in calls:
            assert await refused(call) == (reason, "id")
    name = await retrieval.collection()
    request = pb.AttachFileRequest(collection=name, file_id=absent)
    call = files.AttachFile(request, metadata=metadata)
    assert await refused(call) == ("RESOURCE_NOT_FOUND", "file_id")


async def test_attached_file_is_found_by_searches(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    made = await upload(name="brennar.txt")
    response = await attach(retrieval, name, made.id, year=1872)
    attachment = response.attachment
    assert attachment.status == pb.ATTACHMENT_STATUS_COMPLETED
    assert (attachment.collection, attachment.file_id) == (name, made.id)
    assert attachment.num_chunks == 1
    assert attachment.num_bytes == len(WORDS) + 4 * 384
    assert attachment.metadata["year"].number_value == 1872
    hits = await retrieval.search(name, response.consistency_token, text="lighthouse")
    assert [hit.chunk.document_id for hit in hits] == [made.id]
    assert hits[0].chunk.file_name == "brennar.txt"
    again = await attach(retrieval, name, made.id, year=1872)
    assert again.attachment.num_bytes == attachment.num_bytes
    found = await retrieval.files.GetAttachment(
        pb.GetAttachmentRequest(collection=name, file_id=made.id), metadata=retrieval.metadata
    )
    assert found.attachment == again.attachment


async def test_file_that_cannot_be_read_is_kept_as_failed(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    made = await upload(b"%PDF-1.7 broken", "broken.pdf")
    response = await attach(retrieval, name, made.id)
    assert response.attachment.status == pb.ATTACHMENT_STATUS_FAILED
    assert response.attachment.error.reason == "INVALID_REQUEST"
    assert "PDF" in response.attachment.error.message
    assert response.consistency_token == ""
    listed = await retrieval.files.ListAttachments(
        pb.ListAttachmentsRequest(collection=name), metadata=retrieval.metadata
    )
    assert list(listed.attachments) == [response.attachment]


async def test_attachments_are_listed_newest_first_in_pages(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    made = [await upload(b"words %d" % number) for number in range(5)]
    for one in made:
        await attach(retrieval, name, one.id)
    listed: list[pb.Attachment] = []
    token = ""
    while True:
        request = pb.ListAttachmentsRequest(collection=name, page_size=2, page_token=token)
        page = await retrieval.files.ListAttachments(request, metadata=retrieval.metadata)
        listed += page.attachments
        token = page.next_page_token
        if not token:
            break
    assert [one.file_id for one in listed] == [one.id for one in reversed(made)]


async def test_detached_file_stays_a_file_and_leaves_the_collection(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    made = await upload()
    await attach(retrieval, name, made.id)
    detach = pb.DetachFileRequest(collection=name, file_id=made.id)
    detached = await retrieval.files.DetachFile(detach, metadata=retrieval.metadata)
    assert await retrieval.search(name, detached.consistency_token, text="lighthouse") == []
    call = retrieval.files.DetachFile(detach, metadata=retrieval.metadata)
    assert await refused(call) == ("RESOURCE_NOT_FOUND", "file_id")
    request = pb.GetFileRequest(id=made.id)
    assert (await retrieval.files.GetFile(request, metadata=retrieval.metadata)).file == made


async def test_deleted_file_leaves_what_was_made_of_it(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    made = await upload()
    token = (await attach(retrieval, name, made.id)).consistency_token
    request = pb.DeleteFileRequest(id=made.id)
    await retrieval.files.DeleteFile(request, metadata=retrieval.metadata)
    call = retrieval.files.GetFile(pb.GetFileRequest(id=made.id), metadata=retrieval.metadata)
    assert await refused(call) == ("RESOURCE_NOT_FOUND", "id")
    assert len(await retrieval.search(name, token, text="lighthouse")) == 1


async def test_attachments_vanish_with_their_documents_and_their_collection(
    retrieval: ServedRetrieval, upload: Uploader
) -> None:
    name = await retrieval.collection()
    first, second = await upload(), await upload()
    await attach(retrieval, name, first.id)
    await attach(retrieval, name, second.id)
    await retrieval.put(name, [text("other", "words")])
    await retrieval.stub.Delete(
        retrieval_pb2.DeleteRequest(collection=name, document_ids=[first.id, "other"]),
        metadata=retrieval.metadata,
    )
    request = pb.ListAttachmentsRequest(collection=name)
    listed = await retrieval.files.ListAttachments(request, metadata=retrieval.metadata)
    assert [one.file_id for one in listed.attachments] == [second.id]
    await retrieval.clean()
    create = retrieval_pb2.CreateCollectionRequest(name=name)
    await retrieval.stub.CreateCollection(create, metadata=retrieval.metadata)
    retrieval.made.append(name)
    listed = await retrieval.files.ListAttachments(request, metadata=retrieval.metadata)
    assert list(listed.attachments) == []
