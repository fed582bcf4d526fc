"""Pictures that are embedded, classified, compared and searched by, with both clients."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import orrery
from orrery.requests.pictures import Picture, as_images
from orrery.v1 import common_pb2
from tests.unit.client.both_clients import Either
from tests.unit.client.fake_retrieval import PNG, FakePlatform

RED = PNG + b"red"
BLUE = PNG + b"blue, as the sea"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    return tmp_path


async def test_embed_images_keeps_their_order_whatever_their_form(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    with (folder / "red.png").open("rb") as file:
        pictures = [BLUE, folder / "red.png", str(folder / "blue.png"), file]
        result = await either.call("embed_images", pictures, dimensions=2)
    assert result.vectors == ((len(BLUE), 1), (len(RED), 1), (len(BLUE), 1), (len(RED), 1))
    assert (result.model, result.usage) == ("tiny-clip", orrery.Usage())
    _, request, metadata = platform.embedding.seen[0]
    assert request.dimensions == 2
    assert metadata["application"] == "clip"


async def test_one_bare_picture_is_a_list_of_one(either: Either, folder: Path) -> None:
    for picture in (RED, folder / "red.png", str(folder / "red.png"), io.BytesIO(RED)):
        result = await either.call("embed_images", picture)
        assert len(result.vectors) == 1


async def test_the_service_refuses_what_is_no_picture_by_its_place(either: Either) -> None:
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await either.call("embed_images", [RED, b"text"])
    assert caught.value.field == "images[1]"


async def test_a_picture_that_cannot_be_read_is_named_and_nothing_is_sent(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    for call, arguments in (
        ("embed_images", ([RED, folder / "absent.png"],)),
        ("classify", ([RED, folder / "absent.png"], ["a", "b"])),
    ):
        with pytest.raises(orrery.InvalidRequestError, match=r"absent\.png") as caught:
            await either.call(call, *arguments)
        assert caught.value.field == "images[1]"
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await either.call("similarity", ["text"], [folder / "absent.png"])
    assert caught.value.field == "right[0]"
    with pytest.raises(orrery.InvalidRequestError) as caught:
        await either.call("search", "docs", image=folder)
    assert caught.value.field == "image"
    assert platform.embedding.seen == []
    assert platform.retrieval.calls("SearchRequest") == []


async def test_classify_gives_labels_best_first(either: Either, platform: FakePlatform) -> None:
    labels = ["x" * len(BLUE), "x" * len(RED), "x"]
    result = await either.call(
        "classify", [RED, BLUE], labels, templates=["a {}", "the {}"], top_n=2
    )
    assert [each.label for each in result.results] == [labels[1], labels[0]]
    best = result.results[0].scores[0]
    assert (best.index, best.label, best.probability, best.similarity) == (1, labels[1], 0.5, 0.0)
    assert len(result.results[0].scores) == 2
    _, request, metadata = platform.embedding.seen[0]
    assert list(request.templates) == ["a {}", "the {}"]
    assert metadata["application"] == "clip"


async def test_one_template_is_not_taken_for_its_letters(
    either: Either, platform: FakePlatform
) -> None:
    await either.call("classify", RED, ["a", "b"], templates="a picture of a {}")
    assert list(platform.embedding.seen[0][1].templates) == ["a picture of a {}"]


async def test_one_bare_label_is_a_type_error(either: Either) -> None:
    with pytest.raises(TypeError, match="labels"):
        await either.call("classify", RED, "red")


async def test_similarity_takes_texts_for_texts_and_all_else_for_pictures(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    result = await either.call(
        "similarity", ["x" * len(RED), BLUE], [folder / "red.png", io.BytesIO(BLUE), "other"]
    )
    assert result.rows == ((1, 0, 0), (0, 1, 0))
    assert (await either.call("similarity", "same", "text")).rows == ((1,),)
    request = platform.embedding.seen[0][1]
    assert [each.WhichOneof("kind") for each in request.left] == ["text", "image"]


async def test_the_application_can_be_chosen(platform: FakePlatform) -> None:
    names = orrery.ServiceNames(clip="clip-large")
    async with orrery.AsyncClient(platform.target, services=names) as client:
        await client.embed_images(RED)
        await client.classify(RED, ["a", "b"], application="other")
        await client.similarity("a", "b", application="")
    applications = [metadata.get("application") for _, _, metadata in platform.embedding.seen]
    assert applications == ["clip-large", "other", None]


async def test_model_of_texts_alone_says_so(either: Either) -> None:
    model = await either.call("embedding_model")
    assert model.modalities == ("text",)
    assert (model.max_image_bytes, model.label_templates) == (0, ())


# --- collections of pictures ------------------------------------------------------------------


async def test_ingest_makes_a_collection_of_pictures_and_search_finds_them(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    report = await either.call(
        "ingest", folder, collection="pictures", embedding_application="clip"
    )
    assert report.added == ("blue.png", "red.png")
    assert report.failed == ()
    assert platform.retrieval.made["pictures"].config.embedding_application == "clip"

    for picture in (RED, folder / "red.png", str(folder / "red.png"), io.BytesIO(RED)):
        found = await either.call("search", "pictures", image=picture)
        assert [hit.chunk.document_id for hit in found.hits] == ["red.png"]
    chunk = found.hits[0].chunk
    assert (chunk.media_type, chunk.text) == ("image/png", "")
    assert chunk.metadata == {"image_width": 64.0, "image_height": 48.0}


async def test_ingest_into_a_collection_of_another_application_is_refused(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    await either.call("collections.create", "pictures", embedding_application="clip")
    for name, there in (("pictures", "'clip'"), ("docs", "the service's default")):
        with pytest.raises(orrery.InvalidRequestError, match=there) as caught:
            await either.call("ingest", folder, collection=name, embedding_application="mini")
        assert caught.value.field == "embedding_application"
    assert platform.retrieval.calls("UpsertRequest") == []
    again = await either.call("ingest", folder, collection="pictures", embedding_application="clip")
    assert len(again.added) == 2


async def test_a_text_may_stand_beside_a_picture(either: Either, platform: FakePlatform) -> None:
    await either.call("search", "docs", "a ship", image=RED, k=3)
    request = platform.retrieval.calls("SearchRequest")[0]
    assert (request.query.text, request.query.image.data) == ("a ship", RED)
    assert request.options.k == 3


async def test_search_without_any_query_is_refused(either: Either) -> None:
    with pytest.raises(orrery.InvalidRequestError, match="a text, a vector or a picture"):
        await either.call("search", "docs")


async def test_search_batch_tells_texts_vectors_and_pictures_apart(
    either: Either, platform: FakePlatform, folder: Path
) -> None:
    queries: list[Any] = ["text", [0.5, 1.0], RED, folder / "blue.png", io.BytesIO(RED)]
    await either.call("search_batch", "docs", queries)
    sent = platform.retrieval.calls("SearchBatchRequest")[0].queries
    assert sent[0].text == "text"
    assert list(sent[1].vector) == [0.5, 1.0]
    assert [each.image.data for each in sent[2:]] == [RED, BLUE, RED]
    with pytest.raises(TypeError, match="queries"):
        await either.call("search_batch", "docs", RED)


# --- the forms of a picture -------------------------------------------------------------------


def test_bytes_like_objects_are_bytes() -> None:
    for source in (bytearray(RED), memoryview(RED)):
        message = common_pb2.ImageContent()
        Picture(message, source, "image").read()  # type: ignore[arg-type]
        assert message.data == RED


def test_an_open_file_is_read_from_where_it_stands_and_stays_open() -> None:
    file = io.BytesIO(b"before" + RED)
    file.seek(len(b"before"))
    message = common_pb2.ImageContent()
    Picture(message, file, "image").read()
    assert message.data == RED
    assert not file.closed


def test_a_file_open_for_text_is_a_type_error(folder: Path) -> None:
    (folder / "a.txt").write_text("text")
    with (folder / "a.txt").open() as file, pytest.raises(TypeError, match="reading bytes"):
        Picture(common_pb2.ImageContent(), file, "image").read()  # type: ignore[arg-type]


def test_a_picture_larger_than_a_message_is_refused_unsent(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes((15 << 20) + 1))
    with path.open("rb") as file:
        for source in (path, file, path.read_bytes()):
            message = common_pb2.ImageContent()
            with pytest.raises(orrery.InvalidRequestError, match="larger than") as caught:
                Picture(message, source, "image").read()
            assert caught.value.field == "image"
            assert not message.data


@pytest.mark.parametrize("images", [3, None])
def test_no_pictures_at_all_are_a_type_error(images: Any) -> None:
    with pytest.raises(TypeError, match="images"):
        as_images(images)
