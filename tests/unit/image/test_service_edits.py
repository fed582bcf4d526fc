"""Edits, over the scripted engine."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from services.image.events import Advanced
from services.runtime.errors import InvalidRequest
from tests.unit.image.serving import GREY, edit_wish, made, serving


async def test_edit_goes_from_the_picture_for_its_share_of_the_steps() -> None:
    async with serving() as served:
        events = await served.events(edit_wish(n=2))
    assert events[0] == Advanced(0, 0, 2)
    first, second = served.engine.requests
    assert first.source is second.source, "the pictures of a call share what they begin from"
    assert first.source is not None
    np.testing.assert_array_equal(first.source.pixels, GREY)
    assert (first.width, first.height, first.source.strength) == (64, 64, 0.5)
    recipe = json.loads(Image.open(io.BytesIO(made(events)[0].png)).text["recipe"])
    assert recipe["strength"] == 0.5


async def test_masked_edit_keeps_what_is_black() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    async with serving() as served:
        (picture,) = made(await served.events(edit_wish(mask=mask)))
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)))
    assert (pixels[32:] == 90).all()
    assert not (pixels[:32] == 90).all()


async def test_edit_is_resized_where_a_size_is_given() -> None:
    async with serving() as served:
        (picture,) = made(await served.events(edit_wish(width=32, height=96)))
    assert Image.open(io.BytesIO(picture.png)).size == (32, 96)


async def test_edit_of_a_size_that_cannot_be_made_says_which_can() -> None:
    """In words that hold for callers who have no `width` and `height`, but a `size`."""
    odd = np.zeros((63, 64, 3), np.uint8)
    async with serving() as served:
        with pytest.raises(InvalidRequest) as caught:
            await served.events(edit_wish(odd))
        assert caught.value.field == "image"
        assert caught.value.message == (
            "image: is 64 x 63 pixels, and no other size is asked for: "
            "expected a multiple of 8 up to 2048, got 63"
        )
        with pytest.raises(InvalidRequest) as caught:
            await served.events(edit_wish(odd, width=60, height=64))
        assert caught.value.field == "parameters.width"
        assert len(made(await served.events(edit_wish(odd, width=64, height=64)))) == 1


@pytest.mark.parametrize("strength", [0.0, 0.2, 1.5, float("nan")])
async def test_edit_that_leaves_no_step_is_refused(strength: float) -> None:
    async with serving() as served:
        with pytest.raises(InvalidRequest) as caught:
            await served.events(edit_wish(strength=strength))
    assert caught.value.field == "strength"
