"""Bad input gets its exact status, reason and field, and never reaches the engine."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import grpc
import numpy as np
import pytest

from orrery.v1 import common_pb2
from orrery.v1 import image_pb2 as pb
from tests.contract.image_served import PROMPT, ServedImages, drawing, sent, wish
from tests.contract.served import refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NAN, INF = float("nan"), float("inf")
MAX_SEED = (1 << 63) - 1

PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({"num_steps": 0}, "num_steps"),
    "10,000 steps": ({"num_steps": 10_000}, "num_steps"),
    "NaN guidance": ({"guidance_scale": NAN}, "guidance_scale"),
    "infinite guidance": ({"guidance_scale": INF}, "guidance_scale"),
    "negative guidance": ({"guidance_scale": -7.5}, "guidance_scale"),
    "guidance below 1": ({"guidance_scale": 0.5}, "guidance_scale"),
    "guidance of 10,000": ({"guidance_scale": 10_000.0}, "guidance_scale"),
    "NaN rescale": ({"guidance_rescale": NAN}, "guidance_rescale"),
    "rescale above 1": ({"guidance_rescale": 1.5}, "guidance_rescale"),
    "rescale without guidance": (
        {"guidance_rescale": 0.5, "guidance_scale": 1.0},
        "guidance_rescale",
    ),
    "eta of another scheduler": (
        {"eta": 0.5, "scheduler": pb.DIFFUSION_SCHEDULER_EULER},
        "eta",
    ),
    "eta above 1": ({"eta": 2.0, "scheduler": pb.DIFFUSION_SCHEDULER_DDIM}, "eta"),
    "NaN eta": ({"eta": NAN, "scheduler": pb.DIFFUSION_SCHEDULER_DDIM}, "eta"),
    "Karras with DDIM": (
        {"karras_sigmas": True, "scheduler": pb.DIFFUSION_SCHEDULER_DDIM},
        "karras_sigmas",
    ),
    "unknown scheduler": ({"scheduler": 99}, "scheduler"),
    "negative prompt without guidance": (
        {"negative_prompt": "green", "guidance_scale": 1.0},
        "negative_prompt",
    ),
    "no pictures": ({"n": 0}, "n"),
    "a million pictures": ({"n": 1_000_000}, "n"),
    "no width": ({"width": 0}, "width"),
    "no height": ({"height": 0}, "height"),
    "width of no multiple": ({"width": 61}, "width"),
    "height of no multiple": ({"height": 61}, "height"),
    "width over the limit": ({"width": 1 << 20, "height": 8}, "width"),
    "height over the limit": ({"width": 64, "height": 4_294_967_288}, "height"),
    "seed of 2^63": ({"seed": 1 << 63}, "seed"),
    "last seed of 2^63": ({"seed": MAX_SEED, "n": 2}, "seed"),
    "previews every 0 steps": (
        {"previews": pb.PreviewOptions(every_num_steps=0)},
        "previews.every_num_steps",
    ),
    "unknown kind of preview": ({"previews": pb.PreviewOptions(kind=99)}, "previews.kind"),
    "top_n without ranking": ({"top_n": 1}, "top_n"),
    "top_n of 0": ({"top_n": 0, "rank_by_similarity": True}, "top_n"),
    "top_n above n": ({"top_n": 3, "n": 2, "rank_by_similarity": True}, "top_n"),
}


async def is_refused(served: ServedImages, request: Any, field: str | None) -> str:
    """The reason. Nothing of it may reach the engine."""
    before = await served.load()
    rpc = served.stub.Edit if isinstance(request, pb.EditRequest) else served.stub.Generate
    call = rpc(request, metadata=served.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(call))
    refused = refusal(caught.value)
    assert refused.code is INVALID, caught.value.details()
    assert refused.field == field
    assert refused.request_id
    after = await served.load()
    assert after.num_steps_done == before.num_steps_done, "it reached the engine"
    return refused.reason


@pytest.mark.parametrize("name", PARAMETERS)
async def test_bad_parameter_is_refused_by_field(served_images: ServedImages, name: str) -> None:
    parameters, field = PARAMETERS[name]
    request = wish(**parameters)
    assert await is_refused(served_images, request, f"parameters.{field}") == "INVALID_REQUEST"


@pytest.mark.parametrize("name", ["no steps", "NaN guidance", "a million pictures"])
async def test_edit_refuses_the_same_parameters(served_images: ServedImages, name: str) -> None:
    parameters, field = PARAMETERS[name]
    request = pb.EditRequest(
        prompt=PROMPT,
        image=sent(drawing(64, 64)),
        parameters=pb.DiffusionParameters(**parameters),
    )
    assert await is_refused(served_images, request, f"parameters.{field}") == "INVALID_REQUEST"


@pytest.mark.parametrize("prompt", ["", " ", "\n\t "])
async def test_blank_prompt_is_refused(served_images: ServedImages, prompt: str) -> None:
    await is_refused(served_images, wish(prompt), "prompt")
    image = sent(drawing(64, 64))
    await is_refused(served_images, pb.EditRequest(prompt=prompt, image=image), "prompt")


async def test_prompt_over_the_context_is_context_too_long(served_images: ServedImages) -> None:
    model = await served_images.model()
    long = "lamp " * model.max_prompt_tokens
    for request, field in (
        (wish(long), "prompt"),
        (wish(negative_prompt=long), "parameters.negative_prompt"),
    ):
        assert await is_refused(served_images, request, field) == "CONTEXT_TOO_LONG"


async def test_prompt_of_a_million_letters_is_refused(served_images: ServedImages) -> None:
    await is_refused(served_images, wish("x" * 1_000_000), "prompt")


async def test_picture_of_too_many_pixels_is_refused(served_images: ServedImages) -> None:
    model = await served_images.model()
    if model.max_width * model.max_height <= model.max_pixels:
        pytest.skip("width and height alone limit it")
    request = wish(width=model.max_width, height=model.max_height)
    await is_refused(served_images, request, "parameters.width")


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


GOOD = sent(drawing(64, 64)).data
MASK = sent(np.full((64, 64), 255, np.uint8))
PICTURES: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({}, "image"),
    "no bytes": ({"image": common_pb2.ImageContent()}, "image"),
    "no picture's bytes": ({"image": common_pb2.ImageContent(data=b"GIF? no")}, "image"),
    "cut off": ({"image": common_pb2.ImageContent(data=GOOD[: len(GOOD) // 2])}, "image"),
    "another type than it says": (
        {"image": common_pb2.ImageContent(data=GOOD, media_type="image/jpeg")},
        "image",
    ),
    "50k x 50k": ({"image": common_pb2.ImageContent(data=png_header(50_000, 50_000))}, "image"),
    "10 MB": ({"image": common_pb2.ImageContent(data=GOOD + bytes(10_000_000))}, "image"),
    "a size that cannot be made": ({"image": sent(drawing(63, 64))}, "image"),
    "a mask of another size": (
        {"image": sent(drawing(64, 64)), "mask": sent(np.full((64, 72), 255, np.uint8))},
        "mask",
    ),
    "a mask that marks nothing": (
        {"image": sent(drawing(64, 64)), "mask": sent(np.zeros((64, 64), np.uint8))},
        "mask",
    ),
    "a mask without bytes": (
        {"image": sent(drawing(64, 64)), "mask": common_pb2.ImageContent()},
        "mask",
    ),
    "strength 0": ({"image": sent(drawing(64, 64)), "strength": 0.0}, "strength"),
    "strength above 1": ({"image": sent(drawing(64, 64)), "strength": 1.5}, "strength"),
    "negative strength": ({"image": sent(drawing(64, 64)), "strength": -0.5}, "strength"),
    "NaN strength": ({"image": sent(drawing(64, 64)), "strength": NAN}, "strength"),
    "no step left": (
        {"image": sent(drawing(64, 64)), "mask": MASK, "strength": 0.1},
        "strength",
    ),
}


@pytest.mark.parametrize("name", PICTURES)
async def test_bad_picture_is_refused_by_field(served_images: ServedImages, name: str) -> None:
    fields, field = PICTURES[name]
    parameters = pb.DiffusionParameters(num_steps=3)
    request = pb.EditRequest(prompt=PROMPT, parameters=parameters, **fields)
    assert await is_refused(served_images, request, field) == "INVALID_REQUEST"


@pytest.mark.parametrize("rpc", ["Generate", "Edit", "GetImageModel"])
async def test_unknown_model_is_not_found_in_every_rpc(
    served_images: ServedImages, rpc: str
) -> None:
    requests = {
        "Generate": pb.ImageServiceGenerateRequest(model="nobody/knows-it", prompt=PROMPT),
        "Edit": pb.EditRequest(model="nobody/knows-it", prompt=PROMPT),
        "GetImageModel": pb.GetImageModelRequest(model="nobody/knows-it"),
    }
    call = getattr(served_images.stub, rpc)(requests[rpc], metadata=served_images.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if rpc == "GetImageModel" else anext(aiter(call)))
    refused = refusal(caught.value)
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert (refused.reason, refused.field) == ("MODEL_NOT_FOUND", "model")


async def test_text_that_is_no_utf8_is_refused(served_images: ServedImages) -> None:
    generate = served_images.channel.unary_stream(
        "/orrery.v1.ImageService/Generate",
        request_serializer=lambda data: data,
        response_deserializer=pb.ImageServiceGenerateResponse.FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(generate(b"\x12\x02\xff\xfe", metadata=served_images.metadata)))
    assert refusal(caught.value).code is INVALID
