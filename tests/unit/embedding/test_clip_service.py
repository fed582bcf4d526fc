"""A CLIP application's cache, batches and refusals; and what a model of texts alone says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from services.embedding.clip_encoder import ClipPictures
from services.embedding.config import EmbeddingConfig, PicturesConfig, RequestLimitsConfig
from services.embedding.loading import load_models
from services.runtime.model_files import ModelFolderError
from tests.contract.clip_served import ServedClip, clip_in_process, vectors
from tests.contract.embedding_served import in_process
from tests.contract.served import refusal
from tests.fakes.clip_server import clip_server
from tests.fakes.random_clip import random_clip_folder
from tests.fakes.redis_server import RedisServer, redis_server
from tests.unit.embedding.pictures import content, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_clip_folder(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
async def clip(folder: Path) -> AsyncIterator[ServedClip]:
    async with clip_in_process(folder) as application:
        yield application


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis", appendonly=False) as running:
        yield running


async def test_pictures_of_many_callers_share_batches(
    clip: ServedClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    embed = ClipPictures.embed

    def noting(self: ClipPictures, pictures: Any) -> Any:
        sizes.append(len(pictures))
        return embed(self, pictures)

    monkeypatch.setattr(ClipPictures, "embed", noting)
    images = [content(picture(seed)) for seed in range(32)]
    alone = [vectors(await clip.embed_images([image]))[0] for image in images]
    assert sizes == [1] * 32
    sizes.clear()
    responses = await asyncio.gather(*(clip.embed_images([image]) for image in images))
    assert sum(sizes) == 32
    assert len(sizes) < 32
    np.testing.assert_allclose([vectors(item)[0] for item in responses], alone, atol=1e-5)


async def test_vectors_of_pictures_and_labels_come_from_the_cache(
    folder: Path, redis: RedisServer
) -> None:
    images = [content(picture(seed)) for seed in range(3)]
    async with (
        clip_server(folder, redis_url=redis.url) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        clip = ServedClip(channel, (), folder)
        first = await clip.embed_images(images)
        assert not any(item.cached for item in first.embeddings)
        for _ in range(200):  # they are written after the answer
            again = await clip.embed_images(images)
            if all(item.cached for item in again.embeddings):
                break
            await asyncio.sleep(0.01)
        assert all(item.cached for item in again.embeddings)
        np.testing.assert_array_equal(vectors(again), vectors(first))
        classified = await clip.classify(images, ["circle", "square"])
        assert classified.usage.cached_tokens == 0
        for _ in range(200):
            classified = await clip.classify(images, ["circle", "square"])
            if classified.usage.cached_tokens == classified.usage.prompt_tokens:
                break
            await asyncio.sleep(0.01)
        assert classified.usage.cached_tokens == classified.usage.prompt_tokens
        # What is wrong with a picture is wrong with a cached one, too.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clip.embed_images([content(picture(0), media_type="image/gif")])
        assert refusal(caught.value).field == "images[0].data"


async def test_other_preprocessing_does_not_find_the_vectors(
    tmp_path: Path, folder: Path, redis: RedisServer
) -> None:
    other = random_clip_folder(tmp_path / "other", processor={"resample": 2})
    cached = []
    for model in (folder, other, folder):
        async with (
            clip_server(model, redis_url=redis.url) as server,
            grpc.aio.insecure_channel(server.target) as channel,
        ):  # leaving it writes what waits
            found = await ServedClip(channel, (), model).embed_images([content(picture(0))])
        cached.append(found.embeddings[0].cached)
    assert cached == [False, False, True]


async def test_limits_are_those_of_the_settings(folder: Path) -> None:
    limits = PicturesConfig(
        max_images=2, max_image_pixels=1000, max_image_bytes=5000, label_templates=("my {}",)
    )
    async with (
        clip_server(folder, pictures=limits) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        clip = ServedClip(channel, (), folder)
        model = await clip.model()
        assert (model.max_batch_images, model.max_image_pixels) == (2, 1000)
        assert list(model.label_templates) == ["my {}"]
        small = content(picture(0, (20, 20)))
        assert (await clip.embed_images([small] * 2)).embeddings
        for images, field in (
            ([small] * 3, "images"),
            ([small, content(picture(0, (40, 40)))], "images[1].data"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await clip.embed_images(images)
            assert refusal(caught.value).field == field


async def test_too_many_on_both_sides_are_blamed_on_the_side_with_most(folder: Path) -> None:
    async with (
        clip_server(
            folder, pictures=PicturesConfig(max_images=2), limits=RequestLimitsConfig(max_inputs=4)
        ) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        clip = ServedClip(channel, (), folder)
        image = pb.SimilarityInput(image=content(picture(0)))
        text = pb.SimilarityInput(text="a")
        for left, right, field in (
            ([image], [image, image], "right"),
            ([image, image, text], [image, text], "left"),
            ([text, text, image], [text, text, text], "right"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await clip.similarity(left, right)
            said = refusal(caught.value)
            assert (said.reason, said.field) == ("INVALID_REQUEST", field)


async def test_more_cosines_than_an_answer_holds_are_refused_by_name(clip: ServedClip) -> None:
    texts = [pb.SimilarityInput(text="a")] * 2000
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await clip.similarity(texts[:1999], texts)
    assert refusal(caught.value).field == "right"
    assert "cosines" in str(caught.value.details())


async def test_scores_beyond_what_an_answer_holds_are_refused_before_any_is_read(
    folder: Path,
) -> None:
    async with (
        clip_server(folder, pictures=PicturesConfig(max_images=2, max_scores=4)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        clip = ServedClip(channel, (), folder)
        images = [content(picture(0)), content(picture(1))]
        labels = ["circle", "square", "star"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await clip.classify([images[0], common_pb2.ImageContent()], labels)
        assert refusal(caught.value).field == "top_n"
        best = await clip.classify(images, labels, top_n=2)
        assert [len(result.scores) for result in best.results] == [2, 2]


async def test_a_model_of_texts_alone_refuses_pictures_and_says_why(cls_folder: Path) -> None:
    config = EmbeddingConfig(
        model_name="tiny", model_path=str(cls_folder), dtype="float32", num_threads=1
    )
    models = await load_models(config, config.model_path, None)
    image = content(picture(0))
    async with in_process(models, config) as served:
        stub = served.stub
        beside = pb.SimilarityRequest(
            left=[pb.SimilarityInput(text="a")], right=[pb.SimilarityInput(image=image)]
        )
        calls = (
            (stub.EmbedImage(pb.EmbedImageRequest(images=[image])), "images"),
            (stub.Classify(pb.ClassifyRequest(images=[image], labels=["a", "b"])), "images"),
            (stub.Similarity(beside), "right[0].image.data"),
        )
        for call, field in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            said = refusal(caught.value)
            assert (said.reason, said.field) == ("INVALID_REQUEST", field)
            assert "embeds texts alone" in str(caught.value.details())
        model = await served.model()
        assert list(model.modalities) == [pb.MODALITY_TEXT]
        assert model.max_image_bytes == model.max_batch_images == model.max_labels == 0
        texts = pb.SimilarityRequest(
            left=[pb.SimilarityInput(text="a")], right=[pb.SimilarityInput(text="a")]
        )
        assert (await stub.Similarity(texts)).rows[0].cosines[0] == pytest.approx(1.0, abs=1e-4)
    models.close()


async def test_settings_for_pictures_are_refused_by_a_model_of_texts_alone(
    cls_folder: Path,
) -> None:
    config = EmbeddingConfig(model_path=str(cls_folder), pictures=PicturesConfig(), num_threads=1)
    with pytest.raises(ModelFolderError, match="pictures"):
        await load_models(config, config.model_path, None)


async def test_a_prompt_is_refused_by_clip(folder: Path) -> None:
    config = EmbeddingConfig(model_path=str(folder), query_prompt="query: ", num_threads=1)
    with pytest.raises(ModelFolderError, match="query_prompt"):
        await load_models(config, config.model_path, None)
