"""The official `openai` client makes, watches and edits pictures as it does against OpenAI."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
    ImagesResponse,
)
from PIL import Image

from tests.conftest import REPOSITORY, Platform
from tests.fakes.image_gateway import image_gateway

PROMPT = "a red circle left of a blue square"
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ImagesApi:
    """Where the API listens that makes and reads pictures."""

    url: str

    @property
    def base_url(self) -> str:
        """As OpenAI's clients want it."""
        return f"{self.url}/v1"


@pytest.fixture(
    scope="module",
    params=["in_process", pytest.param("platform", marks=pytest.mark.integration)],
)
def images_api(request: pytest.FixtureRequest) -> Iterator[ImagesApi]:
    """The same cases run against both."""
    if request.param == "platform":
        yield ImagesApi(request.getfixturevalue("platform").http_url)
    else:
        with image_gateway(clip=True) as gateway:
            yield ImagesApi(gateway.url)


@pytest.fixture
def client(images_api: ImagesApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=images_api.base_url, api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(images_api: ImagesApi) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=images_api.base_url, api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json is not None
    image = Image.open(io.BytesIO(base64.b64decode(b64_json, validate=True)))
    image.load()
    return image


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def picture() -> bytes:
    return png(Image.new("RGB", (64, 64), "white"))


def left_half() -> bytes:
    """A mask of which the left half is to be painted."""
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    return png(mask)


def few_steps(**more: Any) -> dict[str, Any]:
    return {"steps": 6, **more}


# --- pictures from text -----------------------------------------------------------------------


def test_pictures_are_png_files_with_seeds_and_usage(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        model="diffusion", prompt=PROMPT, n=2, extra_body=few_steps(seed=11)
    )
    assert isinstance(answer, ImagesResponse)
    assert answer.data is not None
    assert [opened(image.b64_json).format for image in answer.data] == ["PNG", "PNG"]
    assert [image.to_dict()["seed"] for image in answer.data] == [11, 12]
    assert (answer.output_format, answer.background) == ("png", "opaque")
    assert answer.usage is not None
    assert answer.usage.input_tokens == answer.usage.total_tokens > 0
    assert answer.usage.input_tokens_details.text_tokens == answer.usage.input_tokens


def test_seed_and_recipe_make_the_picture_again(client: openai.OpenAI) -> None:
    first = client.images.generate(prompt=PROMPT, extra_body=few_steps()).data
    assert first is not None
    told = first[0].to_dict()
    assert isinstance(told["recipe"], dict)
    again = client.images.generate(
        prompt=PROMPT, extra_body={**told["recipe"], "seed": told["seed"]}
    ).data
    assert again is not None
    assert again[0].b64_json == first[0].b64_json


def test_size_is_as_asked_for(client: openai.OpenAI) -> None:
    size: Any = "32x64"
    answer = client.images.generate(prompt=PROMPT, size=size, extra_body=few_steps())
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (32, 64)


def test_best_of_many_is_the_most_similar(client: openai.OpenAI) -> None:
    body = few_steps(seed=1, rank_by_similarity=True)
    ranked = client.images.generate(prompt=PROMPT, n=4, extra_body=body).data
    best = client.images.generate(prompt=PROMPT, n=4, extra_body={**body, "top_n": 1}).data
    assert ranked is not None
    assert best is not None
    scores: list[Any] = [image.to_dict()["similarity"] for image in ranked]
    assert scores == sorted(scores, reverse=True)
    assert [image.to_dict()["seed"] for image in best] == [ranked[0].to_dict()["seed"]]


def test_stream_has_openais_events(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, stream=True, partial_images=2, extra_body=few_steps(seed=3)
    )
    *partial, completed = list(stream)
    assert all(isinstance(event, ImageGenPartialImageEvent) for event in partial)
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert isinstance(completed, ImageGenCompletedEvent)
    assert completed.usage.input_tokens > 0
    assert all(opened(event.b64_json).format == "PNG" for event in (*partial, completed))
    whole = client.images.generate(prompt=PROMPT, extra_body=few_steps(seed=3)).data
    assert whole is not None
    assert whole[0].b64_json == completed.b64_json


def test_stream_that_is_closed_leaves_nothing_behind(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt=PROMPT, n=4, stream=True, partial_images=10, extra_body={"steps": 100}
    )
    next(iter(stream))
    stream.close()
    # The next one is not held up by what nobody waits for.
    assert client.images.generate(prompt=PROMPT, extra_body=few_steps()).data


# --- pictures from pictures -------------------------------------------------------------------


def test_edit_keeps_what_the_mask_keeps(client: openai.OpenAI) -> None:
    answer = client.images.edit(
        image=("white.png", picture()),
        mask=("mask.png", left_half()),
        prompt=PROMPT,
        extra_body=few_steps(seed=5, strength=1.0),
    )
    assert answer.data is not None
    edited = opened(answer.data[0].b64_json)
    assert edited.size == (64, 64)
    kept: Any = edited.getpixel((60, 32))
    assert min(kept) >= 200  # a model's autoencoder does not give back every shade
    assert answer.data[0].to_dict()["seed"] == 5


def test_edit_streams_its_own_events(client: openai.OpenAI) -> None:
    stream = client.images.edit(
        image=picture(),
        prompt=PROMPT,
        stream=True,
        partial_images=1,
        extra_body=few_steps(strength=0.9),
    )
    partial, completed = list(stream)
    assert isinstance(partial, ImageEditPartialImageEvent)
    assert isinstance(completed, ImageEditCompletedEvent)


# --- the asynchronous client ------------------------------------------------------------------


async def test_async_client_works_alike(async_client: openai.AsyncOpenAI) -> None:
    body = few_steps(seed=2)
    whole = await async_client.images.generate(prompt=PROMPT, extra_body=body)
    stream = await async_client.images.generate(
        prompt=PROMPT, stream=True, partial_images=1, extra_body=body
    )
    events = [event async for event in stream]
    assert whole.data is not None
    assert events[-1].b64_json == whole.data[0].b64_json
    assert len(events) == 2
    edited = await async_client.images.edit(image=picture(), prompt=PROMPT, extra_body=body)
    assert edited.data is not None
    assert opened(edited.data[0].b64_json).size == (64, 64)
    edits = await async_client.images.edit(
        image=picture(), prompt=PROMPT, stream=True, extra_body=body
    )
    assert [type(event) async for event in edits] == [ImageEditCompletedEvent]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": "url"}, "response_format"),
        ({"output_format": "webp"}, "output_format"),
        ({"quality": "hd"}, "quality"),
        ({"style": "vivid"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"size": "65x64"}, "size"),
        ({"n": 0}, "n"),
        ({"partial_images": 2}, "partial_images"),
        ({"extra_body": {"steps": 0}}, "steps"),
        ({"extra_body": {"steps": 10_000}}, "steps"),
    ],
)
def test_wrong_request_is_refused_by_name(
    client: openai.OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.images.generate(prompt=PROMPT, **options)
    assert refusal.value.param == param


def test_wrong_edits_are_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as several:
        client.images.edit(image=[picture(), picture()], prompt=PROMPT)
    assert several.value.param == "image"
    with pytest.raises(openai.BadRequestError) as opaque:
        client.images.edit(image=picture(), mask=picture(), prompt=PROMPT)
    assert opaque.value.param == "mask"
    with pytest.raises(openai.BadRequestError) as broken:
        client.images.edit(image=b"no picture", prompt=PROMPT)
    assert broken.value.param == "image"
    with pytest.raises(openai.NotFoundError):
        client.images.create_variation(image=picture())
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(model="dall-e-3", prompt=PROMPT)
    assert unknown.value.code == "model_not_found"


# --- pictures that are looked at --------------------------------------------------------------


def test_texts_and_pictures_are_embedded_together(client: openai.OpenAI) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    given: Any = ["a lamp", {"type": "image_url", "image_url": {"url": url}}]
    answer = client.embeddings.create(model="clip", input=given)
    assert [entry.index for entry in answer.data] == [0, 1]
    lengths = [sum(value * value for value in entry.embedding) for entry in answer.data]
    assert lengths == pytest.approx([1.0, 1.0], abs=1e-2)


def test_models_of_pictures_are_listed(client: openai.OpenAI) -> None:
    models = [model.id for model in client.models.list()]
    for application in ("clip", "diffusion"):
        assert client.models.retrieve(application).id in models


@pytest.mark.integration
def test_picture_is_what_its_prompt_says(platform: Platform) -> None:
    body = {"prompt": "a red circle", "n": 4, "rank_by_similarity": True, "top_n": 1, "seed": 0}
    with httpx.Client(base_url=f"{platform.http_url}/v1", timeout=120) as client:
        (made,) = client.post("/images/generations", json=body).json()["data"]
        labels = ["a red circle", "a blue circle", "a red square", "a green star"]
        question = {"image": made["b64_json"], "labels": labels}
        (found,) = client.post("/images/classify", json=question).json()["data"]
    assert found["scores"][0]["label"] == "a red circle"


@pytest.mark.integration
def test_examples_of_the_page_run(platform: Platform, tmp_path: Path) -> None:
    examples: list[str] = _PYTHON.findall((REPOSITORY / "docs/openai-images.md").read_text())
    code = "\n".join(examples).replace("http://127.0.0.1:8000", platform.http_url)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "star.png" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"circle.png", "star.png", "edited.png"}
