"""Pictures as documents and as queries, beside texts in one collection."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

from orrery.v1 import common_pb2, embedding_pb2
from orrery.v1 import retrieval_pb2 as pb
from services.retrieval.pictures import is_picture
from services.runtime.errors import InvalidRequest
from tests.contract.retrieval_served import OPTIONS, ServedRetrieval, ids, text
from tests.contract.served import refusal
from tests.fakes.hash_embedding import HashEmbeddingServicer
from tests.fakes.redis_server import RedisServer
from tests.fakes.retrieval_server import retrieval_server
from tests.unit.retrieval.conftest import Site


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def document(id_: str, data: bytes, name: str = "", title: str = "", kind: str = "") -> pb.Document:
    file = pb.FileContent(data=data, name=name, media_type=kind)
    return pb.Document(id=id_, title=title, file=file)


def image_query(data: bytes, text_: str = "", media_type: str = "") -> pb.SearchQuery:
    return pb.SearchQuery(
        text=text_, image=common_pb2.ImageContent(data=data, media_type=media_type)
    )


async def search(
    client: ServedRetrieval, name: str, token: str, query: pb.SearchQuery, **options: object
) -> list[pb.Hit]:
    response = await client.stub.Search(
        pb.SearchRequest(
            collection=name,
            query=query,
            options=pb.SearchOptions(**options),
            consistency_token=token,
        ),
        metadata=client.metadata,
    )
    return list(response.hits)


@pytest.fixture
async def seeing(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    """A replica whose embedding application embeds pictures too."""
    embedding = HashEmbeddingServicer(embeds_pictures=True)
    async with (
        retrieval_server(redis.url, tmp_path / "data", embedding=embedding) as server,
        grpc.aio.insecure_channel(server.target, options=OPTIONS) as channel,
    ):
        yield Site(server, ServedRetrieval(channel, ()), embedding)


COLOURS = ("red", "green", "blue")


async def put_colours(site: Site) -> tuple[str, str]:
    name = await site.client.collection()
    token = await site.client.put(
        name, [document(colour, picture(colour), f"{colour[:1]}.png") for colour in COLOURS]
    )
    return name, token


@pytest.mark.parametrize("colour", COLOURS)
async def test_pictures_are_found_by_text_and_by_picture(seeing: Site, colour: str) -> None:
    name, token = await put_colours(seeing)
    by_text = await seeing.client.search(name, token, text=colour, k=1)
    by_picture = await search(seeing.client, name, token, image_query(picture(colour, "BMP")), k=1)
    assert ids(by_text) == ids(by_picture) == [f"{colour}#0"]
    assert by_picture[0].dense_score == pytest.approx(1.0, abs=1e-5)


async def test_picture_is_one_chunk_that_tells_its_kind_and_size(seeing: Site) -> None:
    name = await seeing.client.collection()
    data = picture("red", "JPEG", (30, 20))
    token = await seeing.client.put(name, [document("a", data, "x/a.jpg")])
    (hit,) = await search(seeing.client, name, token, image_query(data))
    chunk = hit.chunk
    assert (chunk.media_type, chunk.file_name, chunk.text) == ("image/jpeg", "x/a.jpg", "")
    assert chunk.metadata["image_width"].number_value == 30
    assert chunk.metadata["image_height"].number_value == 20
    wide = pb.Filter(
        comparison=pb.Comparison(
            field="image_width",
            operator=pb.FILTER_OPERATOR_GT,
            values=[pb.MetadataValue(number_value=30)],
        )
    )
    assert await search(seeing.client, name, token, image_query(data), filter=wide) == []


async def test_same_picture_again_is_unchanged_and_not_embedded_again(seeing: Site) -> None:
    name, _ = await put_colours(seeing)
    before = seeing.embedding.num_pictures
    (again,) = await seeing.client.upsert(name, [document("red", picture("red"), "r.png")])
    assert again.status == pb.UPSERT_STATUS_UNCHANGED
    assert seeing.embedding.num_pictures == before


async def test_text_beside_a_picture_counts_for_the_words(seeing: Site) -> None:
    name = await seeing.client.collection()
    token = await seeing.client.put(
        name,
        [
            document("a", picture("red"), title="a harbour"),
            document("b", picture("blue"), title="a mountain"),
        ],
    )
    query = image_query(picture("red"), "mountain")
    hits = await search(seeing.client, name, token, query)
    ranks = {hit.chunk.document_id: (hit.dense_rank, hit.sparse_rank) for hit in hits}
    assert ranks == {"a": (1, 0), "b": (2, 1)}


@pytest.mark.parametrize("title", ["", " "])
async def test_pictures_without_words_are_reranked_beside_those_with_some(
    seeing: Site, title: str
) -> None:
    name = await seeing.client.collection()
    token = await seeing.client.put(
        name,
        [
            document("untitled", picture("red"), title=title),
            document("titled", picture("blue"), title="a harbour"),
            text("text", "the mountain"),
        ],
    )
    hits = await seeing.client.search(
        name, token, text="harbour", rerank=embedding_pb2.RERANK_METHOD_BI_ENCODER
    )
    assert hits[0].chunk.document_id == "titled"
    assert {hit.chunk.document_id for hit in hits} == {"untitled", "titled", "text"}
    assert [hit.score for hit in hits] == [hit.rerank_score for hit in hits]


async def test_texts_and_pictures_share_a_collection(seeing: Site) -> None:
    name, token = await put_colours(seeing)
    token = await seeing.client.put(name, [text("words", "blue")])
    hits = await search(seeing.client, name, token, image_query(picture("blue")), k=2)
    assert set(ids(hits)) == {"blue#0", "words#0"}


async def test_batch_of_searches_takes_pictures_and_names_the_broken_one(seeing: Site) -> None:
    name, token = await put_colours(seeing)
    response = await seeing.client.stub.SearchBatch(
        pb.SearchBatchRequest(
            collection=name,
            queries=[
                image_query(picture("green")),
                pb.SearchQuery(text="red"),
                image_query(b"no"),
            ],
            options=pb.SearchOptions(k=1),
            consistency_token=token,
        )
    )
    found = [[hit.chunk.document_id for hit in result.hits] for result in response.results]
    assert found == [["green"], ["red"], []]
    assert response.results[2].error.field == "queries[2].image.data"


@pytest.mark.parametrize(
    ("query", "options", "field"),
    [
        (image_query(b""), {}, "query.image.data"),
        (image_query(picture("red")[:40]), {}, "query.image.data"),
        (image_query(b"GIF89a"), {}, "query.image.data"),
        (image_query(picture("red"), media_type="image/jpeg"), {}, "query.image.data"),
        (image_query(picture("red", size=(1100, 1000))), {}, "query.image.data"),
        (
            pb.SearchQuery(vector=[0.0] * 64, image=image_query(picture("red")).image),
            {},
            "query.image",
        ),
        (image_query(picture("red")), {"mode": pb.SEARCH_MODE_SPARSE}, "query.text"),
        (image_query(picture("red"), "words"), {"mode": pb.SEARCH_MODE_SPARSE}, "query.image"),
        (image_query(picture("red"), "words"), {"mode": pb.SEARCH_MODE_DENSE}, "query.text"),
        (image_query(picture("red"), "words"), {"rerank": 2}, "options.rerank"),
    ],
)
async def test_bad_picture_query_is_refused_by_name(
    seeing: Site, query: pb.SearchQuery, options: dict[str, object], field: str
) -> None:
    name, token = await put_colours(seeing)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await search(seeing.client, name, token, query, **options)
    assert refusal(caught.value).reason == "INVALID_REQUEST"
    assert refusal(caught.value).field == field


async def test_what_is_not_the_pictures_fault_is_not_blamed_on_it(seeing: Site) -> None:
    name, token = await put_colours(seeing)
    # As where the model behind the collection was replaced by one of fewer dimensions.
    seeing.embedding.failure = InvalidRequest(
        "dimensions: expected 1 to 32, got 64", field="dimensions"
    )
    (answer,) = await seeing.client.upsert(name, [document("white", picture("white"))])
    assert (answer.error.field, answer.error.reason) == ("dimensions", "INVALID_REQUEST")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await search(seeing.client, name, token, image_query(picture("red")))
    assert refusal(caught.value).field == "dimensions"


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"hello", "a.png", ""),
        (b"hello", "a", "image/jpeg"),
        (picture("red")[:30], "a.png", ""),
        (picture("red"), "a.png", "image/gif"),
        (picture("red", size=(1100, 1000)), "a.png", ""),
    ],
)
async def test_bad_picture_fails_alone(seeing: Site, data: bytes, name: str, kind: str) -> None:
    collection = await seeing.client.collection()
    bad, good = await seeing.client.upsert(
        collection, [document("bad", data, name, kind=kind), document("good", picture("red"))]
    )
    assert bad.status == pb.UPSERT_STATUS_FAILED
    assert bad.error.reason == "INVALID_REQUEST"
    assert bad.error.field == "document.file.data"
    assert good.status == pb.UPSERT_STATUS_ADDED


async def test_collection_of_texts_refuses_pictures(alone: Site) -> None:
    name = await alone.client.collection()
    (answer,) = await alone.client.upsert(name, [document("a", picture("red"))])
    assert answer.error.field == "document.file"
    assert "'embedding' embeds texts alone" in answer.error.message
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await search(alone.client, name, "", image_query(picture("red")))
    assert refusal(caught.value).field == "query.image"


async def test_collection_of_vectors_refuses_pictures(alone: Site) -> None:
    name = await alone.client.vectors_collection()
    (answer,) = await alone.client.upsert(name, [document("a", picture("red"))])
    assert answer.error.field == "document.file"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await search(alone.client, name, "", image_query(picture("red")))
    assert refusal(caught.value).field == "query.image"


def test_pictures_are_told_from_texts_by_mark_name_or_type() -> None:
    assert is_picture(picture("red"), "a.txt", "")
    assert is_picture(picture("red", "WEBP"), "", "")
    assert is_picture(b"BMW builds cars", "a.bmp", "")
    assert is_picture(b"", "", "image/PNG; x=y")
    assert not is_picture(b"BMW builds cars", "a.txt", "text/plain")
    assert not is_picture(b"<svg/>", "a.svg", "image/svg+xml")
