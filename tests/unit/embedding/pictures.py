"""Pictures for the tests: every size and shape, as files and as Pillow has them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from orrery.v1 import common_pb2

# Wide, tall, square, tiny, large, and as large as the small CLIP reads.
SIZES = ((64, 48), (30, 71), (50, 50), (3, 5), (300, 211), (32, 32), (1, 1), (33, 32))


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Soft shapes and some noise: neither flat nor random everywhere."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-20, 21, soft.shape, dtype=np.int16)
    return Image.fromarray(np.clip(soft + noise, 0, 255).astype(np.uint8))


def pictures() -> list[Image.Image]:
    return [picture(seed, size) for seed, size in enumerate(SIZES)]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def content(image: Image.Image, media_type: str = "") -> common_pb2.ImageContent:
    return common_pb2.ImageContent(data=png(image), media_type=media_type)
