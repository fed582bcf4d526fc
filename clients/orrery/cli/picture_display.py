"""Pictures on the terminal: by its own protocol for them, or as coloured half blocks.

kitty's graphics protocol: https://sw.kovidgoyal.net/kitty/graphics-protocol/
iTerm2's inline images: https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Mapping
from typing import Literal

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from orrery.cli.png_pixels import read_rgb_rows
from orrery.results import GeneratedImage
from orrery.settings import terminal_variables

__all__ = ["block_lines", "iterm2_sequence", "kitty_sequence", "protocol_of", "show_picture"]

_KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
_ITERM2_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
_CHUNK = 4096  # of base64, in one escape sequence of kitty's
_MAX_BLOCK_PIXELS = 1 << 18  # more would take over a second to unpack in plain Python
_MAX_BLOCK_COLUMNS = 64
_MIN_COLUMNS = 32
_PIXELS_PER_COLUMN = 8


def show_picture(image: GeneratedImage) -> None:
    """Shows a picture, if standard output is a terminal that can."""
    if not sys.stdout.isatty():
        return
    console = Console()
    wished = max(_MIN_COLUMNS, image.width // _PIXELS_PER_COLUMN)
    columns = min(console.width, wished)
    protocol = protocol_of(terminal_variables())
    if protocol == "kitty":
        sys.stdout.write(kitty_sequence(image.png, columns) + "\n")
    elif protocol == "iterm2":
        sys.stdout.write(iterm2_sequence(image.png, columns) + "\n")
    elif console.color_system in ("truecolor", "256") and not console.no_color:
        for line in block_lines(image.png, min(console.width, _MAX_BLOCK_COLUMNS)):
            console.print(line)
    sys.stdout.flush()


def protocol_of(variables: Mapping[str, str]) -> Literal["kitty", "iterm2"] | None:
    """What the terminal says of itself. tmux and screen keep pictures from the one they run in."""
    term, program = variables.get("TERM", ""), variables.get("TERM_PROGRAM", "")
    if variables.get("TMUX") or variables.get("STY") or term.startswith(("screen", "tmux")):
        return None
    if variables.get("KITTY_WINDOW_ID") or term in _KITTY_TERMS or program == "ghostty":
        return "kitty"
    if program in _ITERM2_PROGRAMS or variables.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return None


def kitty_sequence(png: bytes, columns: int) -> str:
    """Shows a PNG, so many columns wide; `q=2`: the terminal is not to answer."""
    data = base64.b64encode(png).decode()
    parts = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
    first = f"a=T,f=100,q=2,c={columns},"
    return "".join(
        f"\x1b_G{first if i == 0 else ''}m={int(i < len(parts) - 1)};{part}\x1b\\"
        for i, part in enumerate(parts)
    )


def iterm2_sequence(png: bytes, columns: int) -> str:
    """Shows a picture, so many columns wide."""
    about = f"inline=1;size={len(png)};width={columns};preserveAspectRatio=1"
    return f"\x1b]1337;File={about}:{base64.b64encode(png).decode()}\x07"


def block_lines(png: bytes, max_columns: int) -> Iterator[Text]:
    """Lines of characters, each two pixels high; none for a PNG that this client cannot read."""
    rows = read_rgb_rows(png, max_pixels=_MAX_BLOCK_PIXELS) or []
    width = len(rows[0]) // 3 if rows else 0
    scale = max(1.0, width / max_columns)

    def color(x: int, y: int) -> Color | None:
        row = int((y + 0.5) * scale)
        if row >= len(rows):  # below an odd number of rows
            return None
        at = 3 * min(width - 1, int((x + 0.5) * scale))
        return Color.from_rgb(*rows[row][at : at + 3])

    for y in range(0, max(1, round(len(rows) / scale)) if rows else 0, 2):
        line = Text(no_wrap=True)
        for x in range(min(width, max_columns)):
            line.append("▀", Style(color=color(x, y), bgcolor=color(x, y + 1)))
        yield line
