"""What every caller of `ImageService.Edit` may rely on, in-process and on the platform."""

from __future__ import annotations

import json

import numpy as np

from orrery.v1 import image_pb2 as pb
from tests.contract.image_served import (
    PROMPT,
    ServedImages,
    drawing,
    images,
    opened,
    pixels_of,
    sent,
    steps_of,
)


def edit(width: int, height: int, **fields: object) -> pb.EditRequest:
    """A drawing of that size to be edited in few steps."""
    parameters = pb.DiffusionParameters(**{"num_steps": 5, "seed": 4, **fields.pop("with_", {})})
    given = {"prompt": PROMPT, "image": sent(drawing(width, height)), "parameters": parameters}
    return pb.EditRequest(**(given | fields))


async def own_size(served: ServedImages) -> tuple[int, int]:
    model = await served.model()
    return model.default_width, model.default_height


async def test_share_of_the_steps_that_strength_says(served_images: ServedImages) -> None:
    size = await own_size(served_images)
    default = (await served_images.model()).default_strength
    for strength, num_steps in ((1.0, 5), (0.6, 3), (0.2, 1), (None, int(5 * default + 1e-6))):
        given = {} if strength is None else {"strength": strength}
        messages = await served_images.edit(edit(*size, **given))
        assert steps_of(messages) == list(range(num_steps + 1))
        (image,) = images(messages)
        assert (image.width, image.height) == size
        assert opened(image.png).size == size
        told = default if strength is None else strength
        recipe = json.loads(opened(image.png).text["recipe"])
        assert abs(recipe["strength"] - told) < 1e-6
        assert abs(image.recipe.strength - told) < 1e-6
        assert messages[-1].WhichOneof("event") == "done"


async def test_seed_strength_and_picture_decide(served_images: ServedImages) -> None:
    size = await own_size(served_images)
    other = sent(255 - drawing(*size))
    requests = [
        edit(*size, strength=0.6),
        edit(*size, strength=0.6),
        edit(*size, strength=0.6, with_={"seed": 5}),
        edit(*size, strength=0.4),
        edit(*size, strength=0.6, image=other),
    ]
    pictures = []
    for request in requests:
        (image,) = images(await served_images.edit(request))
        pictures.append(pixels_of(image.png))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert len({picture.tobytes() for picture in pictures}) == 4


async def test_mask_keeps_what_is_black(served_images: ServedImages) -> None:
    """Two edits of one picture that differ in the prompt differ where the mask is white, and the
    more the farther they are from where it is black.
    """
    width, height = await own_size(served_images)
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    pictures = []
    for prompt in (PROMPT, "a large green star"):
        request = edit(width, height, prompt=prompt, mask=sent(mask), strength=1.0)
        (image,) = images(await served_images.edit(request))
        pictures.append(pixels_of(image.png).astype(int))
    apart = np.abs(pictures[0] - pictures[1]).mean(axis=(0, 2))
    assert apart[: width // 4].mean() > 2 * apart[-width // 4 :].mean()


async def test_picture_and_mask_are_resized_where_a_size_is_given(
    served_images: ServedImages,
) -> None:
    width, height = await own_size(served_images)
    mask = np.full((height + 3, width + 5), 255, np.uint8)
    request = edit(width + 5, height + 3, mask=sent(mask), with_={"width": width, "height": height})
    (image,) = images(await served_images.edit(request))
    assert opened(image.png).size == (width, height)


async def test_pictures_of_every_kind_are_read(served_images: ServedImages) -> None:
    width, height = await own_size(served_images)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        request = edit(width, height, image=sent(drawing(width, height), kind), strength=0.2)
        assert images(await served_images.edit(request)), kind


async def test_n_edits_and_previews_in_one_call(served_images: ServedImages) -> None:
    size = await own_size(served_images)
    previews = pb.PreviewOptions(every_num_steps=1)
    messages = await served_images.edit(edit(*size, with_={"n": 2, "previews": previews}))
    assert {image.recipe.seed for image in images(messages)} == {4, 5}
    assert any(message.HasField("preview") for message in messages)
    for index in range(2):
        assert steps_of(messages, index) == list(range(5))
