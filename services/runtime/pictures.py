"""Pictures that clients send: which kinds, how large, read without trusting them.

One home for what every service that takes a picture must check. What the file says of itself is
read first, so that a picture too large to decode is refused before a single pixel is; whatever the
bytes are, the answer is a picture or `InvalidRequest`. Knows no model and no service.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from services.runtime.errors import InvalidRequest

__all__ = [
    "MEDIA_TYPES",
    "PictureInfo",
    "PictureLimits",
    "decode_picture",
    "decode_transparency",
    "ignore_pillow_warnings",
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
# A JPEG with further pictures behind the first, as many telephones take them.
_SEVERAL_JPEGS = "MPO"
MEDIA_TYPES = frozenset(_FORMATS.values())
_EXPECTED = "expected a PNG, JPEG, WebP, GIF or BMP picture"
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}

# All that Pillow's readers raise on bytes that are not what they claim to be.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)

# A JPEG may go over its pixels any number of times, and 50 bytes ask for once more; pictures that
# are made to be looked at have a dozen scans. Each part of its EXIF is copied with all before it;
# whatever looks like one is counted, and 16 MiB of other data look 256 times like one.
_JPEG_START, _JPEG_SCAN, _JPEG_EXIF, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xe1", b"\xff\xd9"
_MAX_JPEG_SCANS, _MAX_JPEG_EXIFS, _MAX_JPEG_PARTS = 100, 512, 4096
# What begins a part that says its length. Not so 0xFF among the pixels of a scan: behind it stands
# 0, or a marker without a part.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")

_ORIENTATION_TAG = 0x0112
# TIFF 6.0, section "Orientation": how to put a picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)

T = TypeVar("T", Image.Image, Image.Image | None)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture taken: as bytes, and as pixels once decoded.

    While it is decoded a picture takes up to 16 bytes of memory a pixel.
    """

    max_bytes: int = 8 << 20
    max_pixels: int = 32 << 20


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What the file says of itself. Width and height as seen, after its EXIF orientation."""

    width: int
    height: int
    media_type: str


def ignore_pillow_warnings() -> None:
    """Once, at the start of a process that reads pictures of others.

    Pillow warns of each oddity of a file in words of its own, and Python remembers every warning
    that it has shown: hostile files would fill the memory.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def inspect_picture(
    data: bytes, limits: PictureLimits, field: str, *, media_type: str = ""
) -> PictureInfo:
    """Reads the header alone. Raises `InvalidRequest` naming `field`."""
    with _open(data, limits, field, media_type) as image:
        width, height = image.size
        if _orientation(image) in _ON_THEIR_SIDE:
            width, height = height, width
        return PictureInfo(width, height, _media_type(image))


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
    orientation = _orientation(image)
    try:
        with image:
            image.load()
            converted = convert(image)
        if converted is not None and orientation in _UPRIGHT:
            return converted.transpose(_UPRIGHT[orientation])
        return converted
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
    if data.startswith(_JPEG_START) and _has_too_many_parts(data):
        raise InvalidRequest(
            f"{field}: the JPEG has more parts than any picture needs", field=field
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
    found = _media_type(image)
    claimed = media_type.partition(";")[0].strip().lower()
    if claimed and _ALIASES.get(claimed, claimed) != found:
        raise InvalidRequest(
            f"{field}: the bytes are {found}, not the {media_type[:64]!r} they are called",
            field=field,
        )
    return image


def _has_too_many_parts(data: bytes) -> bool:
    """Of a JPEG. What lies behind its end, as the films of many telephones, is not looked at."""
    if data.count(_JPEG_EXIF) > _MAX_JPEG_EXIFS:
        return True
    num_parts = num_scans = 0
    position = len(_JPEG_START)
    while (marker := _JPEG_MARKER.search(data, position)) and marker[0] != _JPEG_END:
        num_parts += 1
        num_scans += marker[0] == _JPEG_SCAN
        if num_parts > _MAX_JPEG_PARTS or num_scans > _MAX_JPEG_SCANS:
            return True
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        position = marker.end() + max(2, length)  # which counts its own two bytes
    return False


def _media_type(image: Image.Image) -> str:
    name = image.format or ""
    return _FORMATS["JPEG" if name == _SEVERAL_JPEGS else name]


def _orientation(image: Image.Image) -> int:
    """As its EXIF says before any pixel; 1, upright, where that is missing or unreadable."""
    # Pillow's `getexif` would decode a whole PNG to look for EXIF behind the pixels.
    written = image.info.get("exif")
    if not isinstance(written, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(written)
        return int(exif.get(_ORIENTATION_TAG, 1))
    except _UNREADABLE:
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: keep the upper 8
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    if _is_transparent(image):
        with_alpha = image.convert("RGBA")
        rgb = Image.new("RGB", with_alpha.size, "white")
        rgb.paste(with_alpha, mask=with_alpha)
        return rgb
    return image.convert("RGB")


def _to_alpha(image: Image.Image) -> Image.Image | None:
    return image.convert("RGBA").getchannel("A") if _is_transparent(image) else None


def _is_transparent(image: Image.Image) -> bool:
    if image.mode.startswith("I"):  # one grey may stand for nothing there, which Pillow cannot see
        return False
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _too_large(limits: PictureLimits, field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: the picture is too large; expected at most {limits.max_pixels} pixels",
        field=field,
    )
