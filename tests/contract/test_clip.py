"""What every caller of a CLIP application may rely on: in this process, and on the platform.

In this process the model is a small one with random weights; on the platform it is `orrery-clip`.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip import CLIPImageProcessorPil

from orrery.v1 import common_pb2
from orrery.v1 import embedding_pb2 as pb
from tests.contract.clip_served import (
    ServedClip,
    clip_in_process,
    clip_on_platform,
    file_of,
    image,
    running_target,
    vectors,
)
from tests.contract.embedding_served import is_idle
from tests.contract.served import refusal
from tests.fakes.random_clip import random_clip_folder

MIN_COSINE = 0.9999
TEXTS = ("a red circle", "a picture of a blue square on a white background", "two green stars")
LABELS = ("red circle", "blue square", "green star")
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


PICTURES = (picture(0), picture(1, (90, 50)), picture(2, (20, 33)), Image.new("RGB", (64, 64)))


@dataclass(frozen=True)
class Reference:
    """The same folder in transformers."""

    folder: Path

    def texts(self, texts: tuple[str, ...]) -> np.ndarray:
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found = self._model().get_text_features(**inputs).pooler_output
        return torch.nn.functional.normalize(found, dim=-1).numpy()

    def pictures(self, pictures: tuple[Image.Image, ...]) -> np.ndarray:
        processor = CLIPImageProcessorPil.from_pretrained(self.folder)
        values = processor(list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            found = self._model().get_image_features(values).pooler_output
        return torch.nn.functional.normalize(found, dim=-1).numpy()

    def scale(self) -> float:
        return float(self._model().logit_scale.detach().exp())

    def _model(self) -> CLIPModel:
        return CLIPModel.from_pretrained(self.folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_clip_folder(tmp_path_factory.mktemp("contract-clip") / "model")


@pytest.fixture(params=["in-process", pytest.param("platform", marks=[pytest.mark.integration])])
async def clip(request: pytest.FixtureRequest) -> AsyncIterator[ServedClip]:
    """The application under test."""
    if request.param == "in-process":
        context = clip_in_process(request.getfixturevalue("random_folder"))
    else:
        target = running_target() or request.getfixturevalue("platform").grpc_target
        context = clip_on_platform(target)
    async with context as application:
        yield application
        load = await application.wait_until_idle(limit_s=10.0)
        assert is_idle(load), f"something is still held: {load}"


@pytest.fixture
def reference(clip: ServedClip) -> Reference:
    return Reference(clip.folder)


async def refused(awaitable: object, field: str | None, reason: str = "INVALID_REQUEST") -> str:
    """As INVALID_ARGUMENT, naming the field; the message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    said = refusal(caught.value)
    assert (said.code, said.reason, said.field) == (INVALID, reason, field)
    return caught.value.details() or ""


async def test_vectors_of_texts_are_those_of_transformers(
    clip: ServedClip, reference: Reference
) -> None:
    response = await clip.embed_texts(TEXTS)
    got, want = vectors(response), reference.texts(TEXTS)
    assert (got * want).sum(axis=1).min() >= MIN_COSINE
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    assert response.usage.prompt_tokens == sum(item.num_tokens for item in response.embeddings)


async def test_vectors_of_pictures_are_those_of_transformers(
    clip: ServedClip, reference: Reference
) -> None:
    response = await clip.embed_images([image(item) for item in PICTURES])
    got, want = vectors(response), reference.pictures(PICTURES)
    assert (got * want).sum(axis=1).min() >= MIN_COSINE
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    assert [item.num_tokens for item in response.embeddings] == [0] * len(PICTURES)
    assert response.request_id
    assert response.timing.total_ns > 0


async def test_many_concurrent_calls_get_their_own_vectors(
    clip: ServedClip, reference: Reference
) -> None:
    pictures = tuple(picture(seed, (40 + seed, 60)) for seed in range(24))
    calls = [pictures[start : start + 1 + start % 3] for start in range(20)]
    responses = await asyncio.gather(
        *(clip.embed_images([image(item) for item in call]) for call in calls)
    )
    want = reference.pictures(pictures)
    for start, response in enumerate(responses):
        got = vectors(response)
        assert (got * want[start : start + len(got)]).sum(axis=1).min() >= MIN_COSINE


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP"])
async def test_every_kind_of_picture_is_read(clip: ServedClip, kind: str) -> None:
    exact = vectors(await clip.embed_images([image(PICTURES[0])]))
    found = vectors(await clip.embed_images([image(PICTURES[0], kind)]))
    assert (exact * found).sum() >= (MIN_COSINE if kind in ("PNG", "BMP") else 0.8)


async def test_the_same_picture_twice_in_a_call_is_the_same_vector(clip: ServedClip) -> None:
    got = vectors(await clip.embed_images([image(PICTURES[n]) for n in (0, 1, 0)]))
    np.testing.assert_array_equal(got[0], got[2])
    assert not np.allclose(got[0], got[1])


async def test_fewer_dimensions_are_the_first_ones_of_unit_length(clip: ServedClip) -> None:
    images = [image(item) for item in PICTURES]
    whole = vectors(await clip.embed_images(images))
    cut = vectors(await clip.embed_images(images, dimensions=8))
    want = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, want, atol=1e-4)
    dimensions = (await clip.model()).dimensions
    for wrong in (0, dimensions + 1):
        await refused(clip.embed_images(images, dimensions=wrong), "dimensions")


@pytest.mark.parametrize("templates", [(), ("a picture of a {}",), ("a {}", "an image of {}.")])
async def test_labels_are_scored_as_clip_scores_them(
    clip: ServedClip, reference: Reference, templates: tuple[str, ...]
) -> None:
    response = await clip.classify([image(item) for item in PICTURES], LABELS, templates=templates)
    used = templates or tuple((await clip.model()).label_templates)
    prompts = tuple(template.format(label) for label in LABELS for template in used)
    of_labels = reference.texts(prompts).reshape(len(LABELS), len(used), -1).mean(axis=1)
    of_labels /= np.linalg.norm(of_labels, axis=1, keepdims=True)
    cosines = reference.pictures(PICTURES) @ of_labels.T
    logits = torch.tensor(cosines * reference.scale())
    shares = logits.softmax(dim=-1).numpy()
    assert len(response.results) == len(PICTURES)
    for row, result in enumerate(response.results):
        scores = {score.label: score for score in result.scores}
        assert [scores[label].index for label in LABELS] == [0, 1, 2]
        got = [scores[label].probability for label in LABELS]
        assert sum(got) == pytest.approx(1.0, abs=1e-5)
        assert [score.probability for score in result.scores] == sorted(got, reverse=True)
        near = [scores[label].similarity for label in LABELS]
        np.testing.assert_allclose(near, cosines[row], atol=0.015)
        np.testing.assert_allclose(got, shares[row], atol=0.05)
    assert response.usage.prompt_tokens > 0


async def test_only_the_best_labels_come_where_asked_for(clip: ServedClip) -> None:
    images = [image(PICTURES[0])]
    whole = await clip.classify(images, LABELS)
    best = await clip.classify(images, LABELS, top_n=2)
    assert [s.label for s in best.results[0].scores] == [
        s.label for s in whole.results[0].scores[:2]
    ]
    await refused(clip.classify(images, LABELS, top_n=0), "top_n")


async def test_similarity_is_the_cosine_of_the_vectors(clip: ServedClip) -> None:
    texts = vectors(await clip.embed_texts(TEXTS))
    pictures = vectors(await clip.embed_images([image(item) for item in PICTURES]))
    as_text = [pb.SimilarityInput(text=value) for value in TEXTS]
    as_image = [pb.SimilarityInput(image=image(item)) for item in PICTURES]
    left = [as_text[0], as_image[0], as_text[1]]
    got = await clip.similarity(left, [*as_image, *as_text])
    want = np.stack([texts[0], pictures[0], texts[1]]) @ np.concatenate([pictures, texts]).T
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert got[1, 0] == pytest.approx(1.0, abs=1e-3)
    assert (await clip.similarity(as_text, as_text)).shape == (len(TEXTS), len(TEXTS))
    await refused(clip.similarity([], as_text), "left")
    await refused(clip.similarity(as_text, []), "right")
    await refused(clip.similarity(as_text, [pb.SimilarityInput()]), "right[0]")


async def test_the_model_says_what_it_takes(clip: ServedClip) -> None:
    model = await clip.model()
    assert list(model.modalities) == [pb.MODALITY_TEXT, pb.MODALITY_IMAGE]
    assert model.normalized
    assert min(model.max_image_bytes, model.max_image_pixels, model.max_batch_images) > 0
    assert model.max_labels >= 2
    assert all(template.count("{}") == 1 for template in model.label_templates)
    first = await clip.embed_texts(TEXTS[:1])
    assert len(first.embeddings[0].values) == model.dimensions


async def test_texts_are_reranked_by_cosine(clip: ServedClip) -> None:
    request = pb.RerankRequest(query=TEXTS[0], passages=TEXTS)
    response = await clip.stub.Rerank(request, metadata=clip.metadata)
    assert response.method == pb.RERANK_METHOD_BI_ENCODER
    assert response.results[0].index == 0
    assert response.results[0].score == pytest.approx(1.0, abs=1e-3)


async def test_a_long_text_is_refused_or_cut(clip: ServedClip) -> None:
    long = "circle " * (1 + (await clip.model()).max_input_tokens)
    await refused(clip.embed_texts(["a", long]), "inputs[1]", "CONTEXT_TOO_LONG")
    cut = await clip.embed_texts(["a", long], truncate=True)
    assert [item.truncated for item in cut.embeddings] == [False, True]


async def test_a_text_that_is_too_long_is_refused_where_nothing_can_be_cut(
    clip: ServedClip,
) -> None:
    long = ("circle " * (await clip.model()).max_input_tokens)[:1000].strip()
    images, texts = [image(PICTURES[0])], [pb.SimilarityInput(text=value) for value in ("a", long)]
    for call, field in (
        (clip.classify(images, ["a", long]), "labels[1]"),
        (clip.classify(images, LABELS, templates=["{}", long + " {}"]), "templates[1]"),
        (clip.similarity(texts[:1], texts), "right[1].text"),
    ):
        assert "truncate" not in await refused(call, field, "CONTEXT_TOO_LONG")


def bomb(width: int, height: int) -> bytes:
    """A PNG's header that announces so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


GOOD = file_of(PICTURES[0])
HOSTILE = {
    "nothing": b"",
    "no-picture": b"hello",
    "truncated": GOOD[: len(GOOD) // 2],
    "50k-by-50k": bomb(50_000, 50_000),
    "9k-by-9k": bomb(9_000, 9_000),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "tiff": file_of(PICTURES[0], "TIFF"),
    "eps": file_of(PICTURES[0], "EPS"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_picture_is_refused_by_name_and_harms_nobody(
    clip: ServedClip, name: str
) -> None:
    good, bad = image(PICTURES[0]), common_pb2.ImageContent(data=HOSTILE[name])
    beside = asyncio.gather(*(clip.embed_images([good]) for _ in range(4)))
    await refused(clip.embed_images([good, bad]), "images[1].data")
    await refused(clip.classify([bad], LABELS), "images[0].data")
    inputs = [pb.SimilarityInput(text="a"), pb.SimilarityInput(image=bad)]
    await refused(clip.similarity(inputs[:1], inputs), "right[1].image.data")
    assert len(await beside) == 4


async def test_a_picture_by_another_name_is_refused(clip: ServedClip) -> None:
    wrong = image(PICTURES[0], media_type="image/jpeg")
    assert "image/png" in await refused(clip.embed_images([wrong]), "images[0].data")
    assert await clip.embed_images([image(PICTURES[0], media_type="image/png")])
    # Also once its vector may be cached.
    await refused(clip.embed_images([wrong]), "images[0].data")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"labels": []}, "labels"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["one", " "]}, "labels[1]"),
        ({"labels": ["one", "two", "one"]}, "labels[2]"),
        ({"labels": ["one", "x" * 5000]}, "labels[1]"),
        ({"labels": [f"label {n}" for n in range(1025)]}, "labels"),
        ({"templates": ["a {}", "no place"]}, "templates[1]"),
        ({"templates": ["{} and {}"]}, "templates[0]"),
        ({"templates": [""]}, "templates[0]"),
        ({"templates": ["{}" + " " * 5000]}, "templates[0]"),
        ({"templates": [f"{n} {{}}" for n in range(2000)]}, "templates"),
        ({"images": [image(PICTURES[0])] * 100, "labels": [str(n) for n in range(1000)]}, "top_n"),
        ({"images": []}, "images"),
    ],
)
async def test_labels_and_templates_out_of_bounds_are_refused_by_name(
    clip: ServedClip, fields: dict[str, list[object]], field: str
) -> None:
    request = {"images": [image(PICTURES[0])], "labels": list(LABELS), **fields}
    await refused(clip.classify(**request), field)  # type: ignore[arg-type]


async def test_too_many_pictures_are_refused_before_any_is_read(clip: ServedClip) -> None:
    limit = (await clip.model()).max_batch_images
    empty = [common_pb2.ImageContent()] * (limit + 1)
    await refused(clip.embed_images(empty), "images")
    await refused(clip.embed_images([]), "images")


async def test_another_model_is_not_found(clip: ServedClip) -> None:
    for call in (
        clip.embed_images([image(PICTURES[0])], model="other"),
        clip.classify([image(PICTURES[0])], LABELS, model="other"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal(caught.value).reason == "MODEL_NOT_FOUND"


async def test_a_call_out_of_time_ends_and_leaves_nothing(clip: ServedClip) -> None:
    images = [image(picture(seed, (700, 500))) for seed in range(8)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await clip.stub.EmbedImage(
            pb.EmbedImageRequest(images=images), metadata=clip.metadata, timeout=0.005
        )
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
