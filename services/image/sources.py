"""The picture that an edit begins from, and its mask: bytes to pixels, within limits.

Takes time in proportion to the pixels: not for the event loop. Knows nothing of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.image.checks import invalid
from services.image.types import Pixels
from services.runtime.pictures import PictureLimits, decode_picture, inspect_picture

__all__ = ["DecodedSource", "SentPicture", "decode_source", "sent_size"]

# Of 0 to 255: what is lighter is painted anew. Half, as diffusers takes it.
_MASK_THRESHOLD = 128


@dataclass(frozen=True, slots=True)
class SentPicture:
    """A picture as it came; `media_type` may be empty."""

    data: bytes
    media_type: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSource:
    """`pixels [height, width, 3]`; `mask [height, width]` of 0 and 255."""

    pixels: Pixels
    mask: npt.NDArray[np.uint8] | None


def sent_size(
    image: SentPicture, mask: SentPicture | None, limits: PictureLimits
) -> tuple[int, int]:
    """Width and height, from the headers alone. Raises `InvalidRequest`."""
    info = inspect_picture(image.data, limits, "image", media_type=image.media_type)
    if mask is not None:
        masks = inspect_picture(mask.data, limits, "mask", media_type=mask.media_type)
        if (masks.width, masks.height) != (info.width, info.height):
            raise invalid(
                "mask",
                f"expected {info.width} x {info.height} pixels as the image, "
                f"got {masks.width} x {masks.height}",
            )
    return info.width, info.height


def decode_source(
    image: SentPicture, mask: SentPicture | None, size: tuple[int, int], limits: PictureLimits
) -> DecodedSource:
    """Both at `size` (width, height). Raises `InvalidRequest`."""
    picture = decode_picture(image.data, limits, "image", media_type=image.media_type)
    pixels = np.asarray(_resized(picture, size))
    return DecodedSource(pixels, None if mask is None else _decode_mask(mask, size, limits))


def _decode_mask(
    mask: SentPicture, size: tuple[int, int], limits: PictureLimits
) -> npt.NDArray[np.uint8]:
    picture = decode_picture(mask.data, limits, "mask", media_type=mask.media_type).convert("L")
    painted = np.asarray(_resized(picture, size)) >= _MASK_THRESHOLD
    if not painted.any():
        raise invalid("mask", "nothing in it is white, so nothing would be painted")
    return painted.astype(np.uint8) * np.uint8(255)


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
