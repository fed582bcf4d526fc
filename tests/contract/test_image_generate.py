"""What every caller of `ImageService.Generate` may rely on, in-process and on the platform."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orrery.v1 import common_pb2, embedding_pb2
from orrery.v1 import image_pb2 as pb
from tests.contract.image_served import (
    PROMPT,
    RANKING_APPLICATION,
    ServedImages,
    images,
    opened,
    pixels_of,
    steps_of,
    wish,
)

SCHEDULERS = [
    pb.DIFFUSION_SCHEDULER_DDIM,
    pb.DIFFUSION_SCHEDULER_EULER,
    pb.DIFFUSION_SCHEDULER_EULER_ANCESTRAL,
    pb.DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M,
]
# Kernels may differ by the number of rows in a call.
MAX_LEVELS_APART = 1


async def alone(served: ServedImages, prompt: str = PROMPT, **parameters: object) -> np.ndarray:
    """The one picture of a call."""
    (image,) = images(await served.generate(prompt, **parameters))
    return pixels_of(image.png)


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    difference = np.abs(got.astype(int) - want.astype(int)).max()
    assert difference <= MAX_LEVELS_APART, f"{difference} levels apart"


async def test_steps_then_the_picture_then_what_it_took(served_images: ServedImages) -> None:
    messages = await served_images.generate(seed=1)
    assert steps_of(messages) == [0, 1, 2, 3]
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds == ["progress"] * 4 + ["image", "done"]
    model = await served_images.model()
    assert {message.model for message in messages} == {model.model}
    assert len({message.request_id for message in messages}) == 1
    image = messages[-2].image
    assert opened(image.png).size == (image.width, image.height)
    assert (image.width, image.height) == (model.default_width, model.default_height)
    done = messages[-1].done
    assert 0 < done.denoise_ns < done.total_ns
    assert done.queue_ns < done.total_ns
    assert done.rank_ns == 0
    assert 2 < done.prompt_tokens <= model.max_prompt_tokens


async def test_file_tells_how_it_was_made(served_images: ServedImages) -> None:
    (image,) = images(
        await served_images.generate(seed=3, negative_prompt="a cross", guidance_scale=3.5)
    )
    model, text = await served_images.model(), opened(image.png).text
    assert text["prompt"] == PROMPT
    assert text["negative_prompt"] == "a cross"
    assert (text["model"], text["weight_hash"]) == (model.model, model.weight_hash)
    recipe = json.loads(text["recipe"])
    assert (recipe["seed"], recipe["num_steps"], recipe["guidance_scale"]) == (3, 3, 3.5)
    assert image.recipe.seed == 3
    assert image.recipe.scheduler == model.default_scheduler


async def test_recipe_makes_the_picture_again(served_images: ServedImages) -> None:
    """Also where the seed was drawn."""
    (image,) = images(await served_images.generate(scheduler=pb.DIFFUSION_SCHEDULER_DDIM, eta=0.5))
    recipe = image.recipe
    again = await alone(
        served_images,
        seed=recipe.seed,
        num_steps=recipe.num_steps,
        guidance_scale=recipe.guidance_scale,
        guidance_rescale=recipe.guidance_rescale,
        scheduler=recipe.scheduler,
        eta=recipe.eta,
        karras_sigmas=recipe.karras_sigmas,
    )
    assert_same(again, pixels_of(image.png))


async def test_seed_decides_and_is_drawn_where_none_is_given(served_images: ServedImages) -> None:
    first, again = await alone(served_images, seed=11), await alone(served_images, seed=11)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, await alone(served_images, seed=12))
    drawn = {images(await served_images.generate(num_steps=1))[0].recipe.seed for _ in range(3)}
    assert len(drawn) == 3


async def test_every_parameter_shows_in_the_picture(served_images: ServedImages) -> None:
    plain = {"seed": 5, "num_steps": 4, "scheduler": pb.DIFFUSION_SCHEDULER_EULER}
    variants = [
        {},
        {"num_steps": 5},
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.0},
        {"guidance_rescale": 0.7},
        {"negative_prompt": "green"},
        {"karras_sigmas": True},
        {"scheduler": pb.DIFFUSION_SCHEDULER_DDIM},
        {"scheduler": pb.DIFFUSION_SCHEDULER_DDIM, "eta": 1.0},
        {"scheduler": pb.DIFFUSION_SCHEDULER_EULER_ANCESTRAL},
        {"scheduler": pb.DIFFUSION_SCHEDULER_DPM_SOLVER_PP_2M},
    ]
    pictures = [await alone(served_images, **(plain | variant)) for variant in variants]
    pictures.append(await alone(served_images, "a blue ring", **plain))
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


async def test_n_pictures_are_those_of_seeds_counted_up(served_images: ServedImages) -> None:
    messages = await served_images.generate(n=3, seed=20)
    for index in range(3):
        assert steps_of(messages, index) == [0, 1, 2, 3]
    found = images(messages)
    assert sorted(image.image_index for image in found) == [0, 1, 2]
    for image in found:
        assert image.recipe.seed == 20 + image.image_index
        assert_same(await alone(served_images, seed=image.recipe.seed), pixels_of(image.png))


async def test_picture_is_its_own_whatever_else_is_made(served_images: ServedImages) -> None:
    """Other sizes, steps, samplers and guidance, all at once."""
    size = (await served_images.model()).size_multiple * 4
    calls = [
        {
            "seed": number,
            "num_steps": 2 + number % 4,
            "scheduler": SCHEDULERS[number % 4],
            "guidance_scale": 1.0 if number % 3 == 0 else 4.0,
            "width": size * (1 + number % 2),
            "height": size,
        }
        for number in range(12)
    ]
    together = await asyncio.gather(*(alone(served_images, **call) for call in calls))
    for call, picture in zip(calls, together, strict=True):
        assert picture.shape == (call["height"], call["width"], 3)
        assert_same(picture, await alone(served_images, **call))


async def test_previews_as_pictures(served_images: ServedImages) -> None:
    messages = await served_images.generate(
        num_steps=6, previews=pb.PreviewOptions(every_num_steps=2)
    )
    previews = [message.preview for message in messages if message.HasField("preview")]
    # A reader that is slow misses some; the last step has the picture itself.
    assert {preview.step for preview in previews} <= {2, 4}
    assert previews
    size = opened(images(messages)[0].png).size
    assert {opened(preview.png).size for preview in previews} == {size}
    assert steps_of(messages) == list(range(7))


async def test_previews_as_latents(served_images: ServedImages) -> None:
    messages = await served_images.generate(
        previews=pb.PreviewOptions(every_num_steps=1, kind=pb.PREVIEW_KIND_LATENT)
    )
    latents = [message.preview.latent for message in messages if message.HasField("preview")]
    assert latents
    for latent in latents:
        values = np.frombuffer(latent.data, "<f4").reshape(latent.shape)
        assert values.ndim == 3
        assert np.isfinite(values).all()


async def test_ranked_pictures_come_best_first_with_clips_own_cosines(
    served_images: ServedImages,
) -> None:
    messages = await served_images.generate(n=3, seed=30, rank_by_similarity=True)
    ranked = images(messages)
    assert [message.WhichOneof("event") for message in messages[-4:]] == ["image"] * 3 + ["done"]
    assert messages[-1].done.rank_ns > 0
    cosines = [image.similarity for image in ranked]
    assert cosines == sorted(cosines, reverse=True)
    request = embedding_pb2.SimilarityRequest(
        left=[embedding_pb2.SimilarityInput(text=PROMPT)],
        right=[
            embedding_pb2.SimilarityInput(image=common_pb2.ImageContent(data=image.png))
            for image in ranked
        ],
    )
    told = await served_images.clip.Similarity(
        request, metadata=served_images.at(RANKING_APPLICATION)
    )
    np.testing.assert_allclose(cosines, told.rows[0].cosines, atol=5e-3)
    best = images(await served_images.generate(n=3, seed=30, rank_by_similarity=True, top_n=1))
    assert [image.recipe.seed for image in best] == [ranked[0].recipe.seed]


async def test_pictures_that_are_not_ranked_have_no_similarity(
    served_images: ServedImages,
) -> None:
    (image,) = images(await served_images.generate())
    assert not image.HasField("similarity")


async def test_slow_reader_holds_up_nobody_and_misses_no_step(served_images: ServedImages) -> None:
    call = served_images.stub.Generate(wish(num_steps=20), metadata=served_images.metadata)
    stream = aiter(call)
    first = await anext(stream)
    assert images(await served_images.generate())
    rest = [message async for message in stream]
    assert steps_of([first, *rest]) == list(range(21))
    assert images(rest)


async def test_model_tells_what_may_be_asked(served_images: ServedImages) -> None:
    model = await served_images.model()
    assert set(model.schedulers) == set(SCHEDULERS)
    assert model.default_scheduler in SCHEDULERS
    assert model.prediction_type in ("epsilon", "v_prediction")
    assert model.dtype in ("float32", "float16", "bfloat16")
    assert len(model.weight_hash) >= 16
    assert model.can_rank
    assert model.default_width % model.size_multiple == 0
    assert model.max_width % model.size_multiple == 0
    assert model.default_width * model.default_height <= model.max_pixels
    assert 1 <= model.default_num_steps <= model.max_num_steps
    assert 0 < model.default_strength <= 1
    assert model.default_preview_every_num_steps >= 1
    (image,) = images(await served_images.generate(scheduler=pb.DIFFUSION_SCHEDULER_EULER))
    assert image.recipe.karras_sigmas == model.default_karras_sigmas
    assert model.max_n >= 4
    by_name = await served_images.stub.GetImageModel(
        pb.GetImageModelRequest(model=model.model), metadata=served_images.metadata
    )
    assert by_name == model


async def test_load_counts_what_was_done(served_images: ServedImages) -> None:
    before = await served_images.wait_until_idle(limit_s=60.0)
    await served_images.generate(n=2, num_steps=3)
    after = await served_images.wait_until_idle(limit_s=60.0)
    assert after.num_images_done - before.num_images_done == 2
    assert after.num_steps_done - before.num_steps_done == 6
    assert after.max_running_images >= 1
    assert after.resident_bytes > 1 << 20


@pytest.mark.parametrize("service", ["", "orrery.v1.ImageService"])
async def test_health_is_serving(served_images: ServedImages, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(served_images.channel)
    response = await stub.Check(
        health_pb2.HealthCheckRequest(service=service), metadata=served_images.metadata
    )
    assert response.status == health_pb2.HealthCheckResponse.SERVING
