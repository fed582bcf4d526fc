"""Judge a picture by its pixels: is what its caption says there? No network, no training.

Objects are the connected parts that differ from the background. A part's colour is the nearest of
the palette; its shape is the one whose drawing, with the part's area and centre of mass, overlaps
it best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from training.images.drawing import BACKGROUND_VALUES, COLOUR_VALUES, Pixels, coverage
from training.images.scenes import (
    PICTURE_SIZE,
    POSITION_CENTRES,
    SHAPES,
    Facts,
    ObjectFacts,
)

_MIN_DIFFERENCE = 40  # from the background, in RGB distance; the palette's least is 91
_MAX_COLOUR_DISTANCE = 70  # to the palette; its own least is 105
_MIN_AREA = 15  # in pixels; the smallest object drawn has 90
_MIN_OVERLAP = 0.7  # intersection over union with the drawing of a shape
_LARGE_RADIUS = 9.4  # between the largest small and the smallest large radius
_EVERYWHERE = (slice(0, PICTURE_SIZE), slice(0, PICTURE_SIZE))

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """Which parts of a caption hold; a part that the caption leaves out holds.

    `position` is the place of a single object, the relation of a pair, and always that there are
    as many objects as said. `size` and `background` are told for information.
    """

    colour: bool
    shape: bool
    position: bool
    size: bool = True
    background: bool = True

    @property
    def right(self) -> bool:
        """Whether colour, shape and position all hold."""
        return self.colour and self.shape and self.position


@dataclass(frozen=True)
class Found:
    """An object seen in a picture; colour and shape are None where they are like no known one."""

    colour: str | None
    shape: str | None
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """`small` or `large`."""
        return "large" if self.radius > _LARGE_RADIUS else "small"


def check(picture: Pixels, facts: Facts) -> Verdict:
    """Judge `picture`, uint8 [64, 64, 3], by `facts`. Raises ValueError at another shape."""
    if picture.shape != (PICTURE_SIZE, PICTURE_SIZE, 3) or picture.dtype != np.uint8:
        raise ValueError(
            f"picture: expected uint8 [{PICTURE_SIZE}, {PICTURE_SIZE}, 3], "
            f"got {picture.dtype} {list(picture.shape)}"
        )
    background, found = find_objects(picture)
    expected = facts.objects if facts.kind == "pair" else facts.objects * facts.count
    background_holds = facts.background in (None, background)
    if len(found) != len(expected):
        return _verdict_on_wrong_number(found, expected, background_holds)
    verdicts = [
        _verdict(order, expected, facts, background_holds)
        for order in (permutations(found) if facts.kind == "pair" else [found])
    ]
    return max(verdicts, key=lambda verdict: (verdict.colour + verdict.shape, verdict.position))


def find_objects(picture: Pixels) -> tuple[str, list[Found]]:
    """The background's name, and the objects of `picture`, largest first."""
    pixels = picture.astype(np.float32)
    names, values = list(BACKGROUND_VALUES), np.array([*BACKGROUND_VALUES.values()], np.float32)
    nearest = np.linalg.norm(pixels[:, :, None] - values, axis=-1).argmin(axis=-1)
    border = np.ones(nearest.shape, bool)
    border[4:-4, 4:-4] = False
    common = int(np.bincount(nearest[border], minlength=len(names)).argmax())
    ground = np.median(pixels[border & (nearest == common)], axis=0)
    parts = _parts(np.linalg.norm(pixels - ground, axis=-1))
    found = [_look_at(pixels, ground, part) for part in parts]
    return names[common], sorted(found, key=lambda thing: -thing.radius)


def _parts(difference: Plane) -> list[npt.NDArray[np.bool_]]:
    """Masks of the connected parts; each reaches out to where it is half background."""
    parts = []
    labels, count = ndimage.label(difference > _MIN_DIFFERENCE)
    for label in range(1, count + 1):
        part = labels == label
        inside = difference[part]
        strong = np.median(inside[inside >= 0.6 * inside.max()])
        split, pieces = ndimage.label(part & (difference > strong / 2))
        parts += [split == piece for piece in range(1, pieces + 1)]
    return [part for part in parts if part.sum() >= _MIN_AREA]


def _look_at(pixels: Plane, ground: Plane, mask: npt.NDArray[np.bool_]) -> Found:
    """Tell colour, shape, centre and radius of the part under `mask`."""
    difference = np.linalg.norm(pixels - ground, axis=-1)
    core = mask & (difference >= 0.8 * np.quantile(difference[mask], 0.8))
    colour = np.median(pixels[core], axis=0)
    direction = (colour - ground) / max(1e-6, float(((colour - ground) ** 2).sum()))
    near = ndimage.binary_dilation(mask, np.ones((3, 3)))
    covered = np.clip((pixels - ground) @ direction, 0, 1) * near  # [64, 64], 0 to 1
    shape, overlap, x, y, radius = max(
        (_overlap(covered, shape) for shape in SHAPES), key=lambda fit: fit[1]
    )
    return Found(_nearest_colour(colour), shape if overlap >= _MIN_OVERLAP else None, x, y, radius)


def _overlap(covered: Plane, shape: str) -> tuple[str, float, float, float, float]:
    """How well `shape` of the same area and centre of mass fits: name, overlap, x, y, radius."""
    area_at_1, mass_y = _moments(shape)
    area = float(covered.sum())
    radius = math.sqrt(area / area_at_1)
    places = np.arange(PICTURE_SIZE, dtype=np.float32) + 0.5
    x = float(covered.sum(axis=0) @ places) / area
    y = float(covered.sum(axis=1) @ places) / area - mass_y * radius
    drawn = coverage(shape, (-y, -x), radius, _EVERYWHERE)
    overlap = float(np.minimum(drawn, covered).sum() / np.maximum(drawn, covered).sum())
    return shape, overlap, x, y, radius


@cache
def _moments(shape: str) -> tuple[float, float]:
    """Area and height of the centre of mass of a shape of radius 1; all are symmetric in x."""
    window = (slice(0, 400), slice(0, 400))
    drawn = coverage(shape, (-200, -200), 150, window)
    area = float(drawn.sum())
    mass_y = float(drawn.sum(axis=1) @ (np.arange(400) + 0.5 - 200)) / area
    return area / 150**2, mass_y / 150


def _nearest_colour(colour: Plane) -> str | None:
    distances = {
        name: float(np.linalg.norm(colour - np.array(value)))
        for name, value in COLOUR_VALUES.items()
    }
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] <= _MAX_COLOUR_DISTANCE else None


def _verdict(
    found: Sequence[Found], expected: Sequence[ObjectFacts], facts: Facts, background: bool
) -> Verdict:
    """Judge objects matched with the expected ones in this order."""
    pairs = list(zip(found, expected, strict=True))
    return Verdict(
        colour=all(said.colour in (None, seen.colour) for seen, said in pairs),
        shape=all(said.shape in (None, seen.shape) for seen, said in pairs),
        position=_place_holds(found, facts),
        size=all(said.size in (None, seen.size) for seen, said in pairs),
        background=background,
    )


def _verdict_on_wrong_number(
    found: Sequence[Found], expected: Sequence[ObjectFacts], background: bool
) -> Verdict:
    """Too many or too few objects: colour and shape hold if all said ones are to be seen."""
    return Verdict(
        colour={said.colour for said in expected} <= {None, *(seen.colour for seen in found)},
        shape={said.shape for said in expected} <= {None, *(seen.shape for seen in found)},
        position=False,
        size=False,
        background=background,
    )


def _place_holds(found: Sequence[Found], facts: Facts) -> bool:
    if facts.position is not None:
        return facts.position == min(
            POSITION_CENTRES,
            key=lambda name: math.dist(POSITION_CENTRES[name], (found[0].x, found[0].y)),
        )
    if facts.relation is None:
        return True
    right, down = found[1].x - found[0].x, found[1].y - found[0].y
    along, across = (right, down) if facts.relation == "left of" else (down, right)
    return along > abs(across)
