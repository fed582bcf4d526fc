"""Pixels to PNG files that tell how they were made.

The file's text chunks (iTXt, readable with any tool that shows PNG metadata): `prompt`,
`negative_prompt` where there is one, `model`, `weight_hash`, `recipe` (JSON: the names of
`DiffusionParameters`), `Software`. Takes time in proportion to the pixels: not for the event loop.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.image.types import Pixels

__all__ = ["Provenance", "encode_png", "encode_small_png"]

SOFTWARE = "Orrery"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a picture's file tells of it."""

    prompt: str
    negative_prompt: str
    model: str
    weight_hash: str
    recipe: Mapping[str, object]  # what JSON can say


def encode_png(pixels: Pixels, provenance: Provenance | None = None) -> bytes:
    """`pixels [height, width, 3]` as a PNG."""
    return _encode(Image.fromarray(pixels), None if provenance is None else _info(provenance))


def encode_small_png(pixels: Pixels, max_side: int) -> bytes:
    """A PNG whose longer side is at most `max_side`, without text."""
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return _encode(image, None)


def _encode(image: Image.Image, info: PngInfo | None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _info(provenance: Provenance) -> PngInfo:
    info = PngInfo()
    info.add_itxt("prompt", provenance.prompt)
    if provenance.negative_prompt:
        info.add_itxt("negative_prompt", provenance.negative_prompt)
    info.add_itxt("model", provenance.model)
    info.add_itxt("weight_hash", provenance.weight_hash)
    info.add_itxt("recipe", json.dumps(provenance.recipe, allow_nan=False))
    info.add_itxt("Software", SOFTWARE)
    return info
