"""Documents: put in by stream, found again, listed, removed; bad ones named, the rest put in."""

from __future__ import annotations

import asyncio
import io
import random
import zipfile
from collections.abc import AsyncIterator

import grpc
import pypdf
import pytest

from orrery.v1 import retrieval_pb2 as pb
from tests.contract.retrieval_served import (
    ServedRetrieval,
    file,
    text,
    value,
    values,
    vectors,
    where,
)
from tests.contract.served import refusal

ADDED, REPLACED, UNCHANGED, FAILED = (
    pb.UPSERT_STATUS_ADDED,
    pb.UPSERT_STATUS_REPLACED,
    pb.UPSERT_STATUS_UNCHANGED,
    pb.UPSERT_STATUS_FAILED,
)
MARKDOWN = b"""# Lighthouses

## Brennar

The lighthouse of Brennar was built in 1872.

## Kelm

The lighthouse of Kelm has two keepers.
"""
HTML = b"<html><title>Cats</title><body><h1>Cats</h1><p>Cats sleep a lot.</p></body></html>"
CSV = b"name,founded\nBrennar,1872\nKelm,1911\n"


async def get(
    retrieval: ServedRetrieval, collection: str, *ids: str, token: str = "", **options: bool
) -> list[pb.StoredDocument]:
    request = pb.GetRequest(
        collection=collection, document_ids=ids, consistency_token=token, **options
    )
    return list((await retrieval.stub.Get(request, metadata=retrieval.metadata)).documents)


async def test_answers_come_in_the_order_sent_with_counts_and_tokens(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection()
    rng = random.Random(3)
    documents = [text(f"d{n:02}", f"word{n} " * rng.randint(1, 400)) for n in range(30)]
    responses = await retrieval.upsert(name, documents)
    assert [response.document_id for response in responses] == [one.id for one in documents]
    assert [response.num_done for response in responses] == list(range(1, 31))
    assert {response.status for response in responses} == {ADDED}
    assert all(response.num_chunks and response.usage.prompt_tokens for response in responses)
    assert all(response.timing.total_ns for response in responses)
    tokens = [tuple(map(int, one.consistency_token.split("-"))) for one in responses]
    assert tokens == sorted(tokens)


async def test_read_with_the_token_sees_the_write(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection()
    for number in range(20):
        token = await retrieval.put(name, [vectors("a", [1, 0, 0, 0], round=number)])
        [stored] = await get(retrieval, name, "a", token=token)
        assert stored.metadata["round"].number_value == number


async def test_unchanged_document_is_left_alone_and_a_changed_one_replaced(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection()

    async def status(document: pb.Document) -> int:
        [response] = await retrieval.upsert(name, [document])
        return response.status

    assert await status(text("a", "one", year=1)) == ADDED
    assert await status(text("a", "one", year=1)) == UNCHANGED
    assert await status(text("a", "one", year=2)) == REPLACED
    assert await status(text("a", "two", year=2)) == REPLACED
    titled = text("a", "two", year=2)
    titled.title = "Two"
    assert await status(titled) == REPLACED
    assert await status(titled) == UNCHANGED
    assert await status(file("a", b"two", "a.txt")) == REPLACED


async def test_same_id_twice_in_a_stream_leaves_the_last(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    responses = await retrieval.upsert(
        name, [text("a", "first"), text("a", "second"), text("a", "second"), text("a", "third")]
    )
    assert [one.status for one in responses] == [ADDED, REPLACED, UNCHANGED, REPLACED]
    token = responses[-1].consistency_token
    [stored] = await get(retrieval, name, "a", token=token, include_chunks=True)
    assert [chunk.text for chunk in stored.chunks] == ["third"]


async def test_replacing_a_document_takes_all_its_old_chunks_away(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.vectors_collection()
    await retrieval.put(name, [vectors("a", *([1, 0, 0, n] for n in range(9)))])
    token = await retrieval.put(name, [vectors("a", [0, 1, 0, 0])])
    hits = await retrieval.search(name, token, vector=[1, 1, 1, 1], k=100)
    assert [hit.chunk.id for hit in hits] == ["a#0"]


async def test_files_of_several_formats_are_read_and_cut(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    token = await retrieval.put(
        name, [file("l.md", MARKDOWN), file("c.html", HTML), file("t.csv", CSV)]
    )
    documents = await get(
        retrieval, name, "l.md", "c.html", "t.csv", token=token, include_chunks=True
    )
    markdown, html, csv = documents
    assert markdown.title == "Lighthouses"
    assert (html.title, html.media_type) == ("Cats", "text/html")
    assert csv.num_chunks == 2
    for chunk in markdown.chunks:
        assert chunk.text == MARKDOWN.decode()[chunk.start : chunk.end]
        assert (chunk.document_id, chunk.file_name) == ("l.md", "l.md")
    assert [chunk.ordinal for chunk in markdown.chunks] == list(range(markdown.num_chunks))
    assert len(markdown.content_hash) == 64
    assert markdown.num_bytes == len(MARKDOWN)


async def test_own_chunks_keep_what_was_given(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection()
    chunks = [
        pb.ChunkContent(text="first", vector=[3, 0, 0, 4], metadata={"n": value(1)}),
        pb.ChunkContent(text="second", vector=[0, 1, 0, 0], start=100),
    ]
    document = pb.Document(
        id="a",
        title="Title",
        chunks=pb.ChunkContents(chunks=chunks),
        metadata=values({"n": 7, "tags": ["x", "y"]}),
    )
    token = await retrieval.put(name, [document])
    [stored] = await get(
        retrieval, name, "a", token=token, include_chunks=True, include_vectors=True
    )
    first, second = stored.chunks
    assert (first.text, first.start, first.end) == ("first", 0, 5)
    assert (second.text, second.start, second.end) == ("second", 100, 106)
    assert first.metadata["n"].number_value == 1
    assert second.metadata["n"].number_value == 7
    assert list(second.metadata["tags"].string_list.values) == ["x", "y"]
    assert list(first.vector) == pytest.approx([0.6, 0, 0, 0.8])
    assert stored.title == "Title"


def encrypted_pdf() -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    return data.getvalue()


def zip_bomb() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"0" * (300 << 20))
    return data.getvalue()


async def test_bad_files_are_named_and_the_rest_goes_in(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    bad = [
        file("secret.pdf", encrypted_pdf()),
        file("empty.txt", b""),
        file("blank.md", b"   \n \n"),
        file("huge.txt", b"words " * (2 << 20)),
        file("binary.txt", random.Random(1).randbytes(5000)),
        file("broken.pdf", b"%PDF-1.7\nnothing more"),
        file("broken.docx", b"PK\x03\x04 nothing more"),
        file("bomb.docx", zip_bomb()),
        file("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        file("a", b"words", "../../etc/passwd.txt"),
        text("../../etc/passwd", "words"),
        text("", "words"),
        text("tab\there", "words"),
        text("x" * 513, "words"),
        pb.Document(id="nothing"),
        text("empty", ""),
        text("bad-name", "words", **{"a b": 1}),
        text("reserved", "words", file_name="x"),
        text("not-finite", "words", score=float("inf")),
        text("long-value", "words", note="x" * 5000),
        text("many", "words", **{f"f{n}": n for n in range(65)}),
        pb.Document(id="unset", text="words", metadata={"a": pb.MetadataValue()}),
        vectors("vectors", [1, 0, 0, 0]),
    ]
    documents: list[pb.Document] = []
    for number, document in enumerate(bad):
        documents += [document, text(f"good{number}", f"good words number {number}")]
    responses = await retrieval.upsert(name, documents)
    assert len(responses) == len(documents)
    for response in responses[::2]:
        assert response.status == FAILED, response
        assert response.error.reason == "INVALID_REQUEST", response
        assert response.error.field.startswith("document"), response
        assert len(response.error.message) > 10
    assert {response.status for response in responses[1::2]} == {ADDED}
    listed = await retrieval.stub.ListDocuments(
        pb.ListDocumentsRequest(collection=name, consistency_token=responses[-1].consistency_token),
        metadata=retrieval.metadata,
    )
    assert len(listed.documents) == len(bad)
    by_id = {response.document_id: response.error for response in responses[::2]}
    assert "encrypted" in by_id["secret.pdf"].message
    assert "empty" in by_id["empty.txt"].message
    assert by_id["huge.txt"].field == "document.file"
    assert by_id["reserved"].field == "document.metadata.file_name"
    assert by_id["vectors"].field == "document.chunks[0].vector"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (vectors("a", [1, 0, 0]), "document.chunks[0].vector"),
        (vectors("a", [1, 0, 0, 0], [0, 0, 0, 0]), "document.chunks[1].vector"),
        (vectors("a", [1, 0, 0, float("nan")]), "document.chunks[0].vector"),
        (vectors("a", [1e38, 1e38, 1e38, 1e38]), "document.chunks[0].vector"),
        (
            pb.Document(id="a", chunks=pb.ChunkContents(chunks=[pb.ChunkContent(text="a")])),
            "document.chunks[0].vector",
        ),
        (text("a", "words"), "document.text"),
        (file("a.txt", b"words"), "document.file"),
        (pb.Document(id="a", chunks=pb.ChunkContents()), "document.chunks"),
    ],
)
async def test_vectors_that_do_not_fit_are_refused_by_name(
    retrieval: ServedRetrieval, document: pb.Document, field: str
) -> None:
    name = await retrieval.vectors_collection()
    [response] = await retrieval.upsert(name, [document])
    assert (response.status, response.error.field) == (FAILED, field)


async def test_stream_needs_one_collection(retrieval: ServedRetrieval) -> None:
    one, other = await retrieval.collection(), await retrieval.collection()

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        yield pb.UpsertRequest(collection=one, document=text("a", "words"))
        yield pb.UpsertRequest(collection=other, document=text("b", "words"))

    call = retrieval.stub.Upsert(requests(), metadata=retrieval.metadata)
    assert (await call.read()).document_id == "a"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert refusal(caught.value).field == "collection"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.upsert("", [text("a", "words")])
    assert refusal(caught.value).field == "collection"


async def test_empty_stream_ends_well(retrieval: ServedRetrieval) -> None:
    assert await retrieval.upsert(await retrieval.collection(), []) == []


async def test_documents_are_listed_by_id_in_pages(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection()
    documents = [vectors(f"d{n:02}", [1, 0, 0, 0], even=n % 2 == 0) for n in range(11)]
    token = await retrieval.put(name, documents)

    async def pages(condition: pb.Filter | None) -> list[str]:
        found: list[str] = []
        page_token = ""
        while True:
            request = pb.ListDocumentsRequest(
                collection=name,
                page_size=3,
                page_token=page_token,
                filter=condition,
                consistency_token=token,
            )
            page = await retrieval.stub.ListDocuments(request, metadata=retrieval.metadata)
            assert not any(one.chunks for one in page.documents)
            found += [one.id for one in page.documents]
            page_token = page.next_page_token
            if not page_token:
                return found

    assert await pages(None) == [f"d{n:02}" for n in range(11)]
    assert await pages(where("even", "EQ", True)) == [f"d{n:02}" for n in range(0, 11, 2)]
    assert await pages(where("document_id", "GTE", "d09")) == ["d09", "d10"]


async def test_documents_are_deleted_by_id_or_by_filter(retrieval: ServedRetrieval) -> None:
    name = await retrieval.vectors_collection()
    await retrieval.put(name, [vectors(f"d{n}", [1, 0, 0, n], n=n) for n in range(10)])

    async def delete(**fields: object) -> pb.DeleteResponse:
        request = pb.DeleteRequest(collection=name, **fields)
        return await retrieval.stub.Delete(request, metadata=retrieval.metadata)

    assert (await delete(document_ids=["d0", "d0", "absent"])).num_deleted == 1
    deleted = await delete(filter=where("n", "GTE", 5))
    assert deleted.num_deleted == 5
    hits = await retrieval.search(name, deleted.consistency_token, vector=[1, 1, 1, 1], k=100)
    assert sorted(hit.chunk.document_id for hit in hits) == ["d1", "d2", "d3", "d4"]
    assert (await delete(document_ids=["d0"])).num_deleted == 0
    for fields in ({}, {"document_ids": ["d1"], "filter": where("n", "EQ", 1)}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await delete(**fields)
        assert refusal(caught.value).field == "document_ids"


async def test_documents_are_not_chosen_by_what_only_their_chunks_have(
    retrieval: ServedRetrieval,
) -> None:
    name = await retrieval.collection()
    token = await retrieval.put(name, [file("prices.csv", b"item,price\ntea,5\ncoffee,6\n")])
    assert await retrieval.search(name, token, text="tea", filter=where("price", "NE", 6))
    for call, request in (
        (retrieval.stub.Delete, pb.DeleteRequest),
        (retrieval.stub.ListDocuments, pb.ListDocumentsRequest),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(
                request(collection=name, filter=where("price", "NE", 6)),
                metadata=retrieval.metadata,
            )
        assert refusal(caught.value).field == "filter"


async def test_stream_that_is_cancelled_leaves_no_work(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    long = "the words of a long document " * 4000

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        for number in range(1000):
            yield pb.UpsertRequest(collection=name, document=text(f"d{number}", long))

    call = retrieval.stub.Upsert(requests(), metadata=retrieval.metadata)
    await asyncio.sleep(0.3)
    call.cancel()
    load = await retrieval.wait_until_idle(limit_s=5.0)
    assert load.num_running == 0


async def test_stream_past_its_deadline_ends_as_such(retrieval: ServedRetrieval) -> None:
    name = await retrieval.collection()
    long = "the words of a long document " * 1000
    metadata = (*retrieval.metadata, ("x-timeout-ms", "300"))

    async def requests() -> AsyncIterator[pb.UpsertRequest]:
        for number in range(8):
            yield pb.UpsertRequest(collection=name, document=text(f"d{number}", long))
        # gRPC's client calls it INTERNAL when a status comes while it is still sending.
        await asyncio.Event().wait()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in retrieval.stub.Upsert(requests(), metadata=metadata):
            pass
    assert refusal(caught.value).reason == "DEADLINE_EXCEEDED"
    assert (await retrieval.wait_until_idle(limit_s=5.0)).num_running == 0
