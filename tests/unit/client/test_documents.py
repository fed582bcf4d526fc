"""Documents into collections and out again, with both clients, over streams that break."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import orrery
from orrery import Document, DocumentChunk
from orrery.v1 import retrieval_pb2 as pb
from tests.unit.client.both_clients import Either
from tests.unit.client.fake_retrieval import FakePlatform


def texts(count: int, start: int = 0) -> list[Document]:
    return [Document(f"d{i:03}", f"text {i}") for i in range(start, start + count)]


async def test_upsert_answers_every_document_in_order(
    platform: FakePlatform, either: Either
) -> None:
    report = await either.call("documents.upsert", "docs", texts(100), max_in_flight=7)
    assert [result.document_id for result in report.results] == [f"d{i:03}" for i in range(100)]
    assert [result.num_done for result in report.results] == list(range(1, 101))
    assert report.count("added") == 100
    assert report.consistency_token == "100-0"
    again = await either.call("documents.upsert", "docs", texts(101))
    assert (again.count("unchanged"), again.count("added")) == (100, 1)
    assert platform.retrieval.num_streams == 2
    metadata = platform.retrieval.seen[0][2]
    assert metadata["application"] == "retrieval"


async def test_upsert_of_nothing_calls_nobody(platform: FakePlatform, either: Either) -> None:
    assert (await either.call("documents.upsert", "docs", [])).results == ()
    assert platform.retrieval.num_streams == 0


@pytest.mark.parametrize("silently", [False, True])
@pytest.mark.parametrize("answer_lost", [False, True])
async def test_upsert_goes_on_when_the_stream_breaks(
    platform: FakePlatform, either: Either, silently: bool, answer_lost: bool
) -> None:
    platform.retrieval.break_after = 5
    platform.retrieval.break_silently = silently
    platform.retrieval.answer_lost = answer_lost
    report = await either.call("documents.upsert", "docs", texts(40), max_in_flight=8)
    assert [result.document_id for result in report.results] == [f"d{i:03}" for i in range(40)]
    # What was written and not answered, or answered while the stream broke, is found unchanged.
    assert report.count("added") + report.count("unchanged") == 40
    assert report.count("unchanged") >= answer_lost
    assert len(platform.retrieval.collections["docs"]) == 40
    assert platform.retrieval.num_streams == 2


async def test_upsert_waits_for_a_service_that_is_starting(
    platform: FakePlatform, either: Either
) -> None:
    platform.retrieval.refuse_upserts = 2
    report = await either.call("documents.upsert", "docs", texts(3))
    assert report.count("added") == 3
    assert platform.retrieval.num_streams == 3


async def test_documents_refused_because_the_store_is_away_are_sent_again(
    platform: FakePlatform, either: Either
) -> None:
    platform.retrieval.down_for = 6
    report = await either.call("documents.upsert", "docs", texts(10), max_in_flight=4)
    assert report.count("added") == 10
    assert report.failed == ()


async def test_upsert_without_retries_gives_the_first_error(platform: FakePlatform) -> None:
    platform.retrieval.refuse_upserts = 1
    async with orrery.AsyncClient(platform.target, max_retries=0) as client:
        with pytest.raises(orrery.UnavailableError):
            await client.documents.upsert("docs", texts(1))


async def test_upsert_has_all_its_patience_after_a_source_that_was_slow(
    platform: FakePlatform, either: Either, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.calls.uploads._PATIENCE_S", 1.0)

    def source() -> Iterator[Document]:
        yield from texts(1)
        time.sleep(1.1)
        yield from texts(1, start=1)

    platform.retrieval.break_after = 1
    report = await either.call("documents.upsert", "docs", source())
    assert report.count("added") == 2


async def test_upsert_gives_up_at_its_deadline(platform: FakePlatform, either: Either) -> None:
    platform.retrieval.refuse_upserts = 10_000
    with pytest.raises(orrery.UnavailableError):
        await either.call("documents.upsert", "docs", texts(1), timeout_s=0.5)


async def test_upsert_into_no_collection_is_an_error(
    platform: FakePlatform, either: Either
) -> None:
    with pytest.raises(orrery.CollectionNotFoundError):
        await either.call("documents.upsert", "nowhere", texts(3))


async def test_failed_document_has_its_error_and_does_not_disturb_the_others(
    platform: FakePlatform, either: Either, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.bin"
    good.write_text("fine")
    bad.write_bytes(b"\0\0")
    nameless = Document("nameless", tmp_path / "zero\0byte.txt")
    last = Document("last", b"bytes", file_name="l.md")
    documents = [good, bad, tmp_path / "missing.txt", nameless, last]
    report = await either.call("documents.upsert", "docs", documents)
    assert [result.status for result in report.results] == ["added", *["failed"] * 3, "added"]
    binary, missing, _ = report.failed
    assert isinstance(binary.error, orrery.InvalidRequestError)
    assert binary.error.message == "binary"
    assert "missing.txt" in missing.error.message
    sent = {
        request.document.id: request.document
        for request in platform.retrieval.calls("UpsertRequest")
    }
    assert sent[good.as_posix()].file.name == "good.txt"
    assert sent["last"].file == pb.FileContent(data=b"bytes", name="l.md")


async def test_document_takes_chunks_and_metadata(platform: FakePlatform, either: Either) -> None:
    chunk = DocumentChunk("part", vector=[0.5, 1.0], start=3, metadata={"page": 2})
    metadata = {"kind": "ship", "year": 1874, "sunk": True, "tags": ["a", "b"]}
    document = Document("d", [chunk], title="T", metadata=metadata)
    await either.call("documents.upsert", "docs", [document])
    sent = platform.retrieval.calls("UpsertRequest")[0].document
    assert sent.title == "T"
    assert sent.chunks.chunks[0].start == 3
    assert list(sent.chunks.chunks[0].vector) == [0.5, 1.0]
    assert sent.metadata["tags"].string_list.values == ["a", "b"]
    assert sent.metadata["year"].number_value == 1874
    assert sent.metadata["sunk"].bool_value is True
    (found,) = await either.call("documents.get", "docs", ["d", "absent"])
    assert found.metadata == {"kind": "ship", "year": 1874.0, "sunk": True, "tags": ("a", "b")}


@pytest.mark.parametrize(
    "wrong", ["text", b"bytes", 3, Document("d", 3), Document("d", "x", metadata={"a": None})]
)
async def test_document_of_a_wrong_type_is_a_type_error(either: Either, wrong: Any) -> None:
    with pytest.raises(TypeError):
        await either.call("documents.upsert", "docs", [wrong])


async def test_errors_of_the_callers_own_source_come_through(either: Either) -> None:
    class Refusal(grpc.RpcError):
        pass

    def source() -> Iterator[Document]:
        yield Document("a", "x")
        raise Refusal

    with pytest.raises(Refusal):
        await either.call("documents.upsert", "docs", source())


async def test_no_more_is_taken_from_the_source_than_may_be_in_flight(
    platform: FakePlatform,
) -> None:
    taken = 0

    def source() -> Iterator[Document]:
        nonlocal taken
        for document in texts(50):
            taken += 1
            yield document

    async with orrery.AsyncClient(platform.target) as client:
        async with client.documents.upsert_stream("docs", source(), max_in_flight=4) as stream:
            async for result in stream:
                assert taken - result.num_done <= 4
                if result.num_done == 20:
                    break
        with pytest.raises(orrery.CancelledError):
            await anext(stream)


async def test_async_source_is_taken_by_the_async_client(platform: FakePlatform) -> None:
    async def source() -> AsyncIterator[Document]:
        for document in texts(5):
            await asyncio.sleep(0)
            yield document

    async with orrery.AsyncClient(platform.target) as client:
        assert (await client.documents.upsert("docs", source())).count("added") == 5


async def test_closing_the_client_ends_its_uploads(platform: FakePlatform, either: Either) -> None:
    platform.retrieval.stall_after = 3
    upload = asyncio.create_task(either.call("documents.upsert", "docs", texts(50)))
    await platform.retrieval.stalled.wait()
    await either.close()
    with pytest.raises(orrery.CancelledError):
        await asyncio.wait_for(upload, 10)
    await asyncio.wait_for(platform.retrieval.cancelled.wait(), 10)


async def test_cancelled_task_cancels_its_upload(platform: FakePlatform) -> None:
    platform.retrieval.stall_after = 3
    async with orrery.AsyncClient(platform.target) as client:
        upload = asyncio.create_task(client.documents.upsert("docs", texts(50)))
        await platform.retrieval.stalled.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        await asyncio.wait_for(platform.retrieval.cancelled.wait(), 10)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_stream_closed_while_it_is_read_ends_the_reading(
    platform: FakePlatform, kind: str
) -> None:
    platform.retrieval.stall_after = 0
    either = Either(kind, platform.target)
    stream = either.client.documents.upsert_stream("docs", texts(5))
    if kind == "sync":
        reading = asyncio.create_task(asyncio.to_thread(next, stream))
    else:
        reading = asyncio.create_task(anext(stream))
    await platform.retrieval.stalled.wait()
    if kind == "sync":
        stream.close()
    else:
        await stream.aclose()
    with pytest.raises(orrery.CancelledError):
        await asyncio.wait_for(reading, 10)
    await either.close()


async def test_upload_ends_at_its_deadline(platform: FakePlatform, either: Either) -> None:
    platform.retrieval.stall_after = 3
    with pytest.raises(orrery.DeadlineExceededError):
        await either.call("documents.upsert", "docs", texts(50), timeout_s=0.5)


async def test_document_too_large_for_a_message_fails_alone(
    platform: FakePlatform, either: Either
) -> None:
    large = 5 << 20  # beyond what the server reads, within what the client sends
    documents = [Document("a", "x"), Document("big", b"x" * large), Document("b", "y")]
    report = await either.call("documents.upsert", "docs", documents)
    assert [result.status for result in report.results] == ["added", "failed", "added"]
    assert report.failed[0].document_id == "big"


async def test_blocking_stream_left_early_can_be_closed(platform: FakePlatform) -> None:
    def read_one(client: orrery.Client) -> orrery.UpsertResult:
        with client.documents.upsert_stream("docs", texts(50), max_in_flight=2) as stream:
            return next(stream)

    with orrery.Client(platform.target) as client:
        assert (await asyncio.to_thread(read_one, client)).document_id == "d000"


async def test_listing_follows_the_pages(platform: FakePlatform, either: Either) -> None:
    platform.retrieval.page_size = 3
    await either.call("documents.upsert", "docs", texts(8))
    found = await either.all("documents.list", "docs", page_size=3)
    assert [document.id for document in found] == [f"d{i:03}" for i in range(8)]
    assert len(platform.retrieval.calls("ListDocumentsRequest")) == 3


async def test_delete_wants_either_ids_or_a_filter(platform: FakePlatform, either: Either) -> None:
    await either.call("documents.upsert", "docs", texts(3))
    result = await either.call("documents.delete", "docs", ["d000", "absent"])
    assert result.num_deleted == 1
    await either.call("documents.delete", "docs", filter=orrery.where("year") > 3)
    assert platform.retrieval.calls("DeleteRequest")[1].filter.comparison.field == "year"
    for arguments in ({}, {"document_ids": ["a"], "filter": orrery.where("year") > 3}):
        with pytest.raises(orrery.InvalidRequestError) as caught:
            await either.call("documents.delete", "docs", **arguments)
        assert caught.value.field == "document_ids"


async def test_collections_are_made_changed_listed_and_removed(
    platform: FakePlatform, either: Either
) -> None:
    made = await either.call(
        "collections.create",
        "ships",
        title="Ships",
        metadata={"a": "b"},
        metric="dot",
        index_type="hnsw",
        hnsw_m=16,
        chunk_max_tokens=100,
        bm25_k1=0.5,
        language="german",
    )
    assert (made.name, made.title, made.metadata) == ("ships", "Ships", {"a": "b"})
    config = made.config
    assert (config.metric, config.index_type, config.hnsw_m) == ("dot", "hnsw", 16)
    assert (config.chunk_max_tokens, config.bm25_k1, config.language) == (100, 0.5, "german")
    assert (config.num_lists, config.dimensions, config.embedding_application) == (None,) * 3
    assert made.fields == (orrery.MetadataField("year", ("number",)),)
    with pytest.raises(orrery.AlreadyExistsError):
        await either.call("collections.create", "ships")
    assert (await either.call("collections.update", "ships", title="S")).title == "S"
    assert (await either.call("collections.update", "ships", metadata={})).metadata == {}
    platform.retrieval.page_size = 1
    assert [c.name for c in await either.call("collections.list")] == ["docs", "ships"]
    assert (await either.call("collections.rebuild", "ships")).name == "ships"
    assert (await either.call("collections.snapshot")).log_position == "5-0"
    assert (await either.call("collections.load")).num_documents == 7
    await either.call("collections.delete", "ships")
    with pytest.raises(orrery.CollectionNotFoundError):
        await either.call("collections.get", "ships")


async def test_collection_is_not_created_twice_when_the_answer_is_lost(
    platform: FakePlatform, either: Either
) -> None:
    """A second attempt would find the collection of the first one, and call it an error."""
    platform.retrieval.lose_answers = 1
    with pytest.raises(orrery.ConnectionLostError):
        await either.call("collections.create", "ships")
    platform.retrieval.lose_answers = 1
    assert (await either.call("collections.create", "ships", exist_ok=True)).name == "ships"


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("metric", "euclid", orrery.InvalidRequestError),
        ("index_type", "annoy", orrery.InvalidRequestError),
        ("dimensions", -1, orrery.InvalidRequestError),
        ("hnsw_m", "many", TypeError),
        ("colour", 1, TypeError),
    ],
)
async def test_collection_option_that_cannot_be_is_refused_by_name(
    either: Either, option: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=option):
        await either.call("collections.create", "x", **{option: value})


async def test_reads_bring_the_newest_token_of_the_collection(
    platform: FakePlatform, either: Either
) -> None:
    await either.call("search", "docs", "text")
    await either.call("documents.upsert", "docs", texts(3))
    await either.call("collections.create", "other")
    for given in (None, "", "9-9"):
        await either.call("search", "docs", "text", consistency_token=given)
    tokens = [r.consistency_token for r in platform.retrieval.calls("SearchRequest")]
    assert tokens == ["", "3-0", "", "9-9"]
    await either.call("collections.list")
    assert platform.retrieval.calls("ListCollectionsRequest")[0].consistency_token == "4-0"
    assert either.client.consistency_token("docs") == "3-0"


async def test_read_your_writes_can_be_switched_off(platform: FakePlatform) -> None:
    async with orrery.AsyncClient(platform.target, read_your_writes=False) as client:
        await client.documents.upsert("docs", texts(1))
        await client.search("docs", "text")
        assert client.consistency_token("docs") == "1-0"
    assert platform.retrieval.calls("SearchRequest")[0].consistency_token == ""


async def test_application_names_can_be_chosen(platform: FakePlatform) -> None:
    for names, sent in (
        (orrery.ServiceNames(retrieval="r2"), "r2"),
        (orrery.ServiceNames(retrieval=""), None),
    ):
        async with orrery.AsyncClient(platform.target, services=names) as client:
            await client.search("docs", "x")
        assert platform.retrieval.seen[-1][2].get("application") == sent
