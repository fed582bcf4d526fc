"""PNG files: pixels and words come back as they were."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from services.image.png import Provenance, encode_png, encode_small_png

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def test_pixels_come_back() -> None:
    image = opened(encode_png(PIXELS))
    assert (image.format, image.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert not image.text


def test_words_come_back_whatever_their_script() -> None:
    told = Provenance(
        prompt="naïve ✓ 日本語 🙂\nsecond line",
        negative_prompt="ünscharf",
        model="m",
        weight_hash="abc",
        recipe={"seed": (1 << 63) - 1, "guidance_scale": 0.7, "karras_sigmas": False},
    )
    text = opened(encode_png(PIXELS, told)).text
    assert text["prompt"] == told.prompt
    assert text["negative_prompt"] == told.negative_prompt
    assert (text["model"], text["weight_hash"], text["Software"]) == ("m", "abc", "Orrery")
    assert json.loads(text["recipe"]) == told.recipe


def test_no_negative_prompt_is_not_told() -> None:
    told = Provenance("p", "", "m", "abc", {})
    assert "negative_prompt" not in opened(encode_png(PIXELS, told)).text


def test_small_picture_keeps_its_shape_within_the_side() -> None:
    assert opened(encode_small_png(PIXELS, 20)).size == (12, 20)
    np.testing.assert_array_equal(np.asarray(opened(encode_small_png(PIXELS, 40))), PIXELS)
