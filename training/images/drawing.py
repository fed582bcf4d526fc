"""Draw scenes as pixels: flat colours, antialiased edges. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.images.scenes import PICTURE_SIZE, Scene

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.floating[Any]]

COLOUR_VALUES = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (250, 225, 50),
    "green": (35, 160, 65),
    "blue": (40, 75, 215),
    "purple": (125, 45, 165),
    "pink": (250, 135, 190),
    "cyan": (60, 205, 225),
}
BACKGROUND_VALUES = {"white": (250, 250, 250), "grey": (128, 128, 128), "black": (12, 12, 12)}


def draw(scene: Scene, size: int = PICTURE_SIZE) -> Pixels:
    """The picture of `scene`: uint8 [size, size, 3]."""
    scale = size / PICTURE_SIZE
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = BACKGROUND_VALUES[scene.background]
    for thing in scene.objects:
        x, y, radius = thing.x * scale, thing.y * scale, thing.radius * scale
        rows = _window(y, radius, size)
        columns = _window(x, radius, size)
        covered = coverage(
            thing.shape, (rows.start - y, columns.start - x), radius, (rows, columns)
        )
        part = picture[rows, columns]
        part += covered[..., None] * (np.array(COLOUR_VALUES[thing.colour], np.float32) - part)
    return np.rint(picture).astype(np.uint8)


def draw_many(scenes: Sequence[Scene], size: int = PICTURE_SIZE) -> Pixels:
    """The pictures of `scenes`: uint8 [len(scenes), size, size, 3]."""
    pictures = np.empty((len(scenes), size, size, 3), np.uint8)
    for picture, scene in zip(pictures, scenes, strict=True):
        picture[:] = draw(scene, size)
    return pictures


def coverage(
    shape: str, offset: tuple[float, float], radius: float, window: tuple[slice, slice]
) -> Plane:
    """The share of each pixel of a window that an object covers, 0 to 1.

    `offset` is the window's first corner (y, x) as seen from the object's centre, in pixels.
    """
    height, width = (side.stop - side.start for side in window)
    v = ((np.arange(height) + 0.5 + offset[0]) / radius).astype(np.float32)[:, None]
    u = ((np.arange(width) + 0.5 + offset[1]) / radius).astype(np.float32)[None, :]
    covered: Plane = np.clip(0.5 - _DISTANCES[shape](u, v) * np.float32(radius), 0, 1)
    return covered


def _window(centre: float, radius: float, size: int) -> slice:
    reach = 1.2 * radius + 1
    return slice(max(0, int(centre - reach)), min(size, int(centre + reach) + 1))


# Signed distances to a shape's outline, negative inside, in units of its radius: u to the right,
# v downwards from its centre. Away from the outline only their sign is exact.


def _circle(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.hypot(u, v) - 1
    return distance


def _square(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.maximum(abs(u), abs(v)) - 0.88
    return distance


def _diamond(u: Plane, v: Plane) -> Plane:
    return (abs(u) + abs(v) - 1.1) * np.float32(0.5**0.5)


def _triangle(u: Plane, v: Plane) -> Plane:
    """Tip at (0, -0.95), base from (-1.05, 0.9) to (1.05, 0.9)."""
    slope = np.float32(1.05 / 1.85)
    side = (abs(u) - (v + 0.95) * slope) / np.hypot(slope, 1)
    distance: Plane = np.maximum(side, v - 0.9)
    return distance


def _cross(u: Plane, v: Plane) -> Plane:
    upright = np.maximum(abs(u) - 0.34, abs(v) - 1)
    level = np.maximum(abs(u) - 1, abs(v) - 0.34)
    distance: Plane = np.minimum(upright, level)
    return distance


def _ring(u: Plane, v: Plane) -> Plane:
    distance: Plane = abs(np.hypot(u, v) - 0.78) - 0.24
    return distance


def _star(u: Plane, v: Plane) -> Plane:
    """Five points at 1.15 and five notches at 0.48; all edges are one, folded by symmetry."""
    fold = np.pi / 5
    angle = np.arctan2(u, -v)
    folded = abs((angle + fold) % (2 * fold) - fold)
    distance = np.hypot(u, v)
    along, across = distance * np.cos(folded), distance * np.sin(folded)
    notch_x, notch_y = 0.48 * np.cos(fold), 0.48 * np.sin(fold)
    length = np.hypot(1.15 - notch_x, notch_y)
    edge: Plane = ((along - 1.15) * notch_y + across * (1.15 - notch_x)) / np.float32(length)
    return edge


_DISTANCES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}
