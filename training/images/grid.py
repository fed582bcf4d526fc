"""A sheet of pictures with words under each, as one PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.images.drawing import Pixels

_EDGE = 144  # of a picture on the sheet, in pixels
_GAP = 12
_FONT_SIZE = 12
_LINE_HEIGHT = 15
_LINES = 5
_LINE_LENGTH = 24  # characters


def contact_sheet(
    pictures: Sequence[Pixels], words: Sequence[str], ink: Sequence[str], columns: int = 8
) -> Image.Image:
    """Pictures in rows of `columns`, each over its words in its colour of ink."""
    rows = -(-len(pictures) // columns)
    cell_width, cell_height = _EDGE + _GAP, _EDGE + _LINES * _LINE_HEIGHT + _GAP
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_FONT_SIZE)
    for index, (picture, text) in enumerate(zip(pictures, words, strict=True)):
        left = _GAP + index % columns * cell_width
        top = _GAP + index // columns * cell_height
        image = Image.fromarray(np.asarray(picture)).resize(
            (_EDGE, _EDGE), Image.Resampling.NEAREST
        )
        sheet.paste(image, (left, top))
        pen.rectangle((left - 1, top - 1, left + _EDGE, top + _EDGE), outline="lightgrey")
        lines = textwrap.wrap(text, _LINE_LENGTH)[:_LINES]
        pen.text((left, top + _EDGE + 3), "\n".join(lines), fill=ink[index], font=font, spacing=2)
    return sheet
