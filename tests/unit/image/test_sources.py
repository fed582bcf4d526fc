"""The picture to edit and its mask, as they come from a client."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from services.image.sources import SentPicture, decode_source, sent_size
from services.runtime.errors import InvalidRequest
from services.runtime.pictures import PictureLimits

LIMITS = PictureLimits(max_bytes=1 << 20, max_pixels=1 << 16)


def sent(image: Image.Image, kind: str = "PNG") -> SentPicture:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return SentPicture(buffer.getvalue())


def grey(width: int, height: int, level: int) -> Image.Image:
    return Image.new("L", (width, height), level)


NOISE = np.random.default_rng(2).integers(0, 256, (32, 48, 3), dtype=np.uint8)
PICTURE = sent(Image.fromarray(NOISE))


def test_picture_of_its_own_size_comes_through_unchanged() -> None:
    assert sent_size(PICTURE, None, LIMITS) == (48, 32)
    decoded = decode_source(PICTURE, None, (48, 32), LIMITS)
    np.testing.assert_array_equal(decoded.pixels, NOISE)
    assert decoded.mask is None


def test_picture_and_mask_are_resized_together() -> None:
    mask = grey(48, 32, 0)
    mask.paste(255, (24, 0, 48, 32))
    decoded = decode_source(PICTURE, sent(mask), (24, 16), LIMITS)
    assert decoded.pixels.shape == (16, 24, 3)
    assert decoded.mask is not None
    assert decoded.mask.shape == (16, 24)
    assert not decoded.mask[:, :11].any()
    assert (decoded.mask[:, 13:] == 255).all()


@pytest.mark.parametrize(("level", "value"), [(255, 255), (128, 255)])
def test_mask_is_all_or_nothing(level: int, value: int) -> None:
    decoded = decode_source(PICTURE, sent(grey(48, 32, level)), (48, 32), LIMITS)
    assert decoded.mask is not None
    assert decoded.mask.dtype == np.uint8
    assert (decoded.mask == value).all()


@pytest.mark.parametrize("level", [0, 127])
def test_mask_without_white_is_refused(level: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_source(PICTURE, sent(grey(48, 32, level)), (48, 32), LIMITS)
    assert caught.value.field == "mask"


def test_transparent_part_of_a_mask_is_painted() -> None:
    mask = Image.new("RGBA", (48, 32), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 10, 10))
    decoded = decode_source(PICTURE, sent(mask), (48, 32), LIMITS)
    assert decoded.mask is not None
    assert (decoded.mask[:10, :10] == 255).all()
    assert decoded.mask.sum() == 100 * 255


def test_mask_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent_size(PICTURE, sent(grey(32, 48, 255)), LIMITS)
    assert caught.value.field == "mask"


@pytest.mark.parametrize(
    ("image", "mask", "field"),
    [
        (SentPicture(b""), None, "image"),
        (SentPicture(b"no picture at all"), None, "image"),
        (SentPicture(PICTURE.data, "image/jpeg"), None, "image"),
        (sent(grey(300, 300, 9)), None, "image"),
        (PICTURE, SentPicture(b"%PDF-1.7"), "mask"),
    ],
)
def test_what_is_no_picture_within_the_limits_is_refused(
    image: SentPicture, mask: SentPicture | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent_size(image, mask, LIMITS)
    assert caught.value.field == field


def test_picture_that_is_cut_off_is_refused() -> None:
    cut = SentPicture(PICTURE.data[: len(PICTURE.data) // 2])
    with pytest.raises(InvalidRequest) as caught:
        decode_source(cut, None, (48, 32), LIMITS)
    assert caught.value.field == "image"
