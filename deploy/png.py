"""Figures as small PNG files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

__all__ = ["save_png"]

_NUM_COLOURS = 128


def save_png(figure: Figure, path: Path) -> None:
    """With few colours: lines and bars need no more, and take a third of the room."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(_NUM_COLOURS, dither=Image.Dither.NONE)
    few.save(path, format="PNG", optimize=True)
