"""Protobuf to the domain and back."""

from __future__ import annotations

import numpy as np
import pytest

from orrery.v1 import common_pb2
from orrery.v1 import image_pb2 as pb
from services.image.checks import Parameters, PreviewWish
from services.image.events import Advanced, Done, LatentPreview, Made, PngPreview
from services.image.messages import edit_wish, generate_wish, scheduler_number, set_event
from services.image.sources import SentPicture
from services.image.types import (
    PictureRequest,
    PreviewKind,
    Sampling,
    SchedulerName,
    Source,
    Times,
)
from services.runtime.errors import InvalidRequest

PIXELS = np.zeros((8, 16, 3), np.uint8)


def test_unset_parameters_are_left_to_the_application() -> None:
    assert generate_wish(pb.ImageServiceGenerateRequest(prompt="p")).parameters == Parameters()


def test_zero_that_was_written_is_not_a_default() -> None:
    message = pb.DiffusionParameters(
        n=0, width=0, height=0, num_steps=0, guidance_scale=0, guidance_rescale=0, eta=0,
        karras_sigmas=False, seed=0, previews=pb.PreviewOptions(every_num_steps=0), top_n=0,
    )  # fmt: skip
    wish = generate_wish(pb.ImageServiceGenerateRequest(parameters=message))
    assert wish.parameters == Parameters(
        n=0, width=0, height=0, num_steps=0, guidance_scale=0.0, guidance_rescale=0.0, eta=0.0,
        karras_sigmas=False, seed=0, previews=PreviewWish(0, PreviewKind.DECODED), top_n=0,
    )  # fmt: skip


@pytest.mark.parametrize("value", [0.7, 0.1, 7.5, 1e-7, 29.99])
def test_decimals_come_as_they_were_written(value: float) -> None:
    """As doubles of their 32 bits, 0.7 of ten steps would be six."""
    message = pb.DiffusionParameters(guidance_scale=value, guidance_rescale=value, eta=value)
    parameters = generate_wish(pb.ImageServiceGenerateRequest(parameters=message)).parameters
    assert parameters.guidance_scale == parameters.guidance_rescale == parameters.eta == value
    edit = edit_wish(pb.EditRequest(image=common_pb2.ImageContent(), strength=value)).edit
    assert edit is not None
    assert edit.strength == value


def test_what_is_no_number_stays_none() -> None:
    message = pb.DiffusionParameters(guidance_scale=float("nan"), eta=float("-inf"))
    parameters = generate_wish(pb.ImageServiceGenerateRequest(parameters=message)).parameters
    assert parameters.guidance_scale != parameters.guidance_scale
    assert parameters.eta == float("-inf")


def test_enums_beyond_the_contract_are_refused_by_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        generate_wish(
            pb.ImageServiceGenerateRequest(parameters=pb.DiffusionParameters(scheduler=99))
        )
    assert caught.value.field == "parameters.scheduler"
    previews = pb.PreviewOptions(kind=99)
    with pytest.raises(InvalidRequest) as caught:
        generate_wish(
            pb.ImageServiceGenerateRequest(parameters=pb.DiffusionParameters(previews=previews))
        )
    assert caught.value.field == "parameters.previews.kind"


def test_every_scheduler_of_the_contract_is_one_of_ours() -> None:
    numbers = set(pb.DiffusionScheduler.values()) - {pb.DIFFUSION_SCHEDULER_UNSPECIFIED}
    assert {scheduler_number(name) for name in SchedulerName} == numbers
    for name in SchedulerName:
        parameters = pb.DiffusionParameters(scheduler=scheduler_number(name))
        wish = generate_wish(pb.ImageServiceGenerateRequest(parameters=parameters))
        assert wish.parameters.scheduler is name


def test_edit_without_a_picture_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        edit_wish(pb.EditRequest(prompt="p"))
    assert caught.value.field == "image"


def test_edit_has_its_pictures() -> None:
    request = pb.EditRequest(
        prompt="p",
        image=common_pb2.ImageContent(data=b"i", media_type="image/png"),
        mask=common_pb2.ImageContent(data=b"m"),
    )
    edit = edit_wish(request).edit
    assert edit is not None
    assert (edit.image, edit.mask) == (SentPicture(b"i", "image/png"), SentPicture(b"m"))
    assert edit.strength is None
    request.ClearField("mask")
    edit = edit_wish(request).edit
    assert edit is not None
    assert edit.mask is None


def _made(source: Source | None, similarity: float | None) -> Made:
    sampling = Sampling(20, SchedulerName.DDIM, 3.5, 0.25, 0.5, False)
    request = PictureRequest("p", "", 16, 8, (1 << 63) - 1, sampling, source)
    return Made(2, request, b"png", Times(0.1, 0.2, 0.3), similarity=similarity)


def test_made_picture_tells_its_recipe() -> None:
    answer = set_event(pb.EditResponse(), _made(Source(PIXELS, 0.5), 0.25)).image
    assert (answer.image_index, answer.png, answer.width, answer.height) == (2, b"png", 16, 8)
    assert answer.recipe == pb.ImageRecipe(
        seed=(1 << 63) - 1, num_steps=20, guidance_scale=3.5, guidance_rescale=0.25,
        scheduler=pb.DIFFUSION_SCHEDULER_DDIM, eta=0.5, karras_sigmas=False, strength=0.5,
    )  # fmt: skip
    assert answer.similarity == 0.25


def test_what_a_picture_has_not_is_not_set() -> None:
    answer = set_event(pb.ImageServiceGenerateResponse(), _made(None, None)).image
    assert not answer.HasField("similarity")
    assert not answer.recipe.HasField("strength")


def test_latents_go_as_little_endian_floats_channels_first() -> None:
    latents = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    message = set_event(pb.EditResponse(), LatentPreview(1, 5, latents)).preview
    assert (message.image_index, message.step) == (1, 5)
    read = np.frombuffer(message.latent.data, "<f4").reshape(message.latent.shape)
    np.testing.assert_array_equal(read, latents)


def test_progress_previews_and_the_end() -> None:
    answer = pb.ImageServiceGenerateResponse
    progress = set_event(answer(), Advanced(1, 0, 7)).progress
    assert (progress.image_index, progress.step, progress.num_steps) == (1, 0, 7)
    assert set_event(answer(), Advanced(0, 0, 7)).WhichOneof("event") == "progress"
    assert set_event(answer(), PngPreview(0, 3, b"png")).preview.png == b"png"
    done = set_event(answer(), Done(0.5, 1.5, 0.25, 0.0, 9)).done
    assert (done.queue_ns, done.denoise_ns, done.decode_ns) == (
        500_000_000,
        1_500_000_000,
        250_000_000,
    )
    assert (done.rank_ns, done.prompt_tokens) == (0, 9)
