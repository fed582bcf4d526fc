"""Small pictures for tests, and what answers hold, as Pillow reads it."""

from __future__ import annotations

import base64
import io

from PIL import Image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def png(
    colour: tuple[int, int, int] = RED, size: tuple[int, int] = (64, 64), kind: str = "PNG"
) -> bytes:
    """A file of one colour."""
    return encoded(Image.new("RGB", size, colour), kind)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def half_transparent(size: tuple[int, int] = (64, 64)) -> bytes:
    """A mask of OpenAI's kind: the left half wholly transparent, the right half opaque."""
    image = Image.new("RGBA", size, (9, 9, 9, 255))
    image.paste((200, 200, 200, 0), (0, 0, size[0] // 2, size[1]))
    return encoded(image)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def opened(b64_json: str) -> Image.Image:
    """A picture of an answer."""
    image = Image.open(io.BytesIO(base64.b64decode(b64_json, validate=True)))
    image.load()
    return image
