"""Pictures that clients send: which kinds, how large, read without trusting them.

One home for what every service that takes a picture must check. What the file says of itself is
read first, so that a picture too large to decode is refused before a single pixel is. Knows no
model and no service.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from services.runtime.errors import InvalidRequest

__all__ = [
    "MEDIA_TYPES",
    "PictureInfo",
    "PictureLimits",
    "decode_picture",
    "decode_transparency",
    "inspect_picture",
]

# Pillow's name of a format, and its media type. Formats that run programs (EPS), hold other files
# or are read by little-tested code are left out.
_FORMATS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
MEDIA_TYPES = frozenset(_FORMATS.values())
_EXPECTED = "expected a PNG, JPEG, WebP, GIF or BMP picture"
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}

# All that Pillow's readers raise on bytes that are not what they claim to be.
_UNREADABLE = (OSError, ValueError, SyntaxError, IndexError, KeyError, OverflowError, EOFError)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture taken: as bytes, and as pixels once decoded."""

    max_bytes: int = 8 << 20
    max_pixels: int = 32 << 20


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What the file says of itself. Width and height as seen, after its EXIF orientation."""

    width: int
    height: int
    media_type: str


def inspect_picture(
    data: bytes, limits: PictureLimits, field: str, *, media_type: str = ""
) -> PictureInfo:
    """Reads the header alone. Raises `InvalidRequest` naming `field`."""
    image = _open(data, limits, field, media_type)
    with image:
        return _info(image)


def decode_picture(
    data: bytes, limits: PictureLimits, field: str, *, media_type: str = ""
) -> Image.Image:
    """The picture as RGB, upright; what is transparent lies on white. Of an animation, the first
    frame. Takes time in proportion to the pixels: not for the event loop.

    Raises `InvalidRequest` naming `field`.
    """
    return _read(_open(data, limits, field, media_type), _to_rgb, limits, field)


def decode_transparency(
    data: bytes, limits: PictureLimits, field: str, *, media_type: str = ""
) -> Image.Image | None:
    """How opaque each pixel is, upright: 0 = wholly transparent, to 255; None of a picture without
    transparency. Of an animation, the first frame. Likewise not for the event loop.

    Raises `InvalidRequest` naming `field`.
    """
    return _read(_open(data, limits, field, media_type), _to_alpha, limits, field)


def _read(
    image: Image.Image, convert: Callable[[Image.Image], T], limits: PictureLimits, field: str
) -> T:
    """Decodes what `_open` opened."""
    try:
        with image:
            return convert(ImageOps.exif_transpose(image))
    except _TOO_LARGE as exc:
        raise _too_large(limits, field) from exc
    except _UNREADABLE as exc:
        raise InvalidRequest(f"{field}: the picture is damaged or cut off", field=field) from exc


def _open(data: bytes, limits: PictureLimits, field: str, media_type: str) -> Image.Image:
    if not data:
        raise InvalidRequest(f"{field}: {_EXPECTED}, got no bytes", field=field)
    if len(data) > limits.max_bytes:
        raise InvalidRequest(
            f"{field}: {len(data)} bytes; expected at most {limits.max_bytes}", field=field
        )
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(_FORMATS))
    except _TOO_LARGE as exc:
        raise _too_large(limits, field) from exc
    except (UnidentifiedImageError, *_UNREADABLE) as exc:
        raise InvalidRequest(f"{field}: {_EXPECTED}", field=field) from exc
    if image.width * image.height > limits.max_pixels:
        raise InvalidRequest(
            f"{field}: {image.width} x {image.height} pixels; expected at most "
            f"{limits.max_pixels} in all",
            field=field,
        )
    found = _FORMATS[image.format or ""]
    claimed = media_type.partition(";")[0].strip().lower()
    if claimed and _ALIASES.get(claimed, claimed) != found:
        raise InvalidRequest(
            f"{field}: the bytes are {found}, not the {media_type[:64]!r} they are called",
            field=field,
        )
    return image


def _info(image: Image.Image) -> PictureInfo:
    width, height = image.size
    if _orientation(image) in (5, 6, 7, 8):  # these lie on their side
        width, height = height, width
    return PictureInfo(width, height, _FORMATS[image.format or ""])


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except (*_UNREADABLE, TypeError):
        return 1  # an unreadable orientation is none


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits of grey: keep the upper 8
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    if _is_transparent(image):
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _to_alpha(image: Image.Image) -> Image.Image | None:
    return image.convert("RGBA").getchannel("A") if _is_transparent(image) else None


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _too_large(limits: PictureLimits, field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: the picture is too large; expected at most {limits.max_pixels} pixels",
        field=field,
    )
