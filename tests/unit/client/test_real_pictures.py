"""The client against the real CLIP and retrieval services, with a small model of random weights."""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

import orrery
from services.retrieval.config import RetrievalConfig
from tests.fakes.clip_server import MODEL_NAME, clip_servicer
from tests.fakes.random_clip import random_clip_folder
from tests.fakes.redis_server import RedisServer, redis_server
from tests.fakes.retrieval_server import RunningRetrieval, retrieval_server
from tests.unit.client.command import orrery as command

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest_asyncio.fixture
async def service(redis: RedisServer, tmp_path: Path) -> AsyncIterator[RunningRetrieval]:
    """Retrieval and CLIP on one port."""
    folder = random_clip_folder(tmp_path / "clip")
    config = RetrievalConfig(
        embedding_applications={"clip": str(folder)}, default_embedding_application="none"
    )
    data = tmp_path / "data"
    async with (
        clip_servicer(folder) as clip,
        retrieval_server(redis.url, data, config, embedding=clip.servicer) as running,
    ):
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in several formats, and what only claims to be one."""
    root = tmp_path / "pictures"
    root.mkdir()
    for colour, ending in zip(COLOURS, ("png", "jpg", "webp"), strict=True):
        image = Image.effect_noise((48, 32), 60).convert("RGB")
        Image.blend(image, Image.new("RGB", (48, 32), colour), 0.7).save(
            root / f"{colour}.{ending}"
        )
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return root


def png_of(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


async def test_classes_vectors_and_cosines_agree(service: RunningRetrieval) -> None:
    pictures = [png_of(colour) for colour in COLOURS]
    labels = [f"a {colour} picture" for colour in COLOURS]
    async with orrery.AsyncClient(service.target) as client:
        model = await client.embedding_model("clip")
        assert model.model == MODEL_NAME
        assert model.modalities == ("text", "image")
        seen = (await client.embed_images(pictures)).vectors
        read = (await client.embed(labels, application="clip")).vectors
        rows = (await client.similarity(pictures, labels)).rows
        sorted_ = await client.classify(pictures, labels, templates="{}")
    for vector, row, classification in zip(seen, rows, sorted_.results, strict=True):
        cosines = [sum(a * b for a, b in zip(vector, text, strict=True)) for text in read]
        assert row == pytest.approx(cosines, abs=1e-4)
        by_index = {score.index: score for score in classification.scores}
        assert [by_index[i].similarity for i in range(3)] == pytest.approx(cosines, abs=1e-4)
        assert sum(score.probability for score in classification.scores) == pytest.approx(1)
        assert classification.label == labels[cosines.index(max(cosines))]


async def test_errors_name_the_picture(service: RunningRetrieval) -> None:
    async with orrery.AsyncClient(service.target) as client:
        with pytest.raises(orrery.InvalidRequestError) as caught:
            await client.classify([png_of("red"), b"no picture"], ["a", "b"])
        assert (caught.value.field or "").startswith("images[1]")
        with pytest.raises(orrery.InvalidRequestError) as caught:
            await client.classify(png_of("red"), ["a", "a"])
        assert (caught.value.field or "").startswith("labels")


async def test_a_folder_of_pictures_goes_in_and_each_is_found_by_itself(
    service: RunningRetrieval, folder: Path
) -> None:
    async with orrery.AsyncClient(service.target) as client:
        report = await client.ingest(folder, collection="pics", embedding_application="clip")
        assert set(report.added) == {"red.png", "green.jpg", "blue.webp"}
        assert [problem.path for problem in report.failed] == ["broken.png"]
        for name in report.added:
            found = await client.search("pics", image=folder / name, k=3)
            assert found.hits[0].chunk.document_id == name
            assert found.hits[0].dense_score == pytest.approx(1, abs=1e-3)
        assert {hit.chunk.media_type for hit in found.hits} == {
            "image/png",
            "image/jpeg",
            "image/webp",
        }
        assert found.hits[0].chunk.metadata["image_width"] == 48
        assert len((await client.search("pics", "a red picture", k=3)).hits) == 3
        both = await client.search_batch("pics", ["a picture", folder / "red.png"], k=1)
        assert len(both.results) == 2
        await client.collections.delete("pics")


async def test_commands_ingest_search_and_classify_pictures(
    service: RunningRetrieval, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", service.target)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(folder)
    made = await command("ingest", ".", "-c", "shown", "--embedding", "clip")
    assert "shown: 3 added, 1 failed" in made.stdout
    again = await command("ingest", ".", "-c", "shown", "--embedding", "clip")
    assert "shown: 3 unchanged, 1 failed" in again.stdout
    found = (await command("search", "--image", "green.jpg", "-c", "shown", "-k", "1")).stdout
    assert found.splitlines()[0].startswith("1. green.jpg")
    assert "48x32 image/jpeg" in found
    sorted_ = await command("classify", *os.listdir(), "--labels", "a,b")
    assert sorted_.exit_code == 2  # one of them is broken
    told = await command("classify", "red.png", "--labels", "a,b", "--json")
    assert json.loads(told.stdout)["model"] == MODEL_NAME
    await command("collections", "delete", "shown", "--yes")
