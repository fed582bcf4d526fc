"""How experts and tokens look, in pictures and on terminals alike. Needs no matplotlib."""

from __future__ import annotations

import unicodedata

__all__ = ["RGB", "expert_color", "ink_on", "token_label"]

RGB = tuple[int, int, int]

# The scheme "muted" of Paul Tol (personal.sron.nl/~pault), told apart without red or green, too; in
# an order in which neighbours differ in lightness. With more experts, colours come again: the
# expert's number stands beside them.
_COLORS: tuple[RGB, ...] = (
    (136, 204, 238),
    (136, 34, 85),
    (221, 204, 119),
    (51, 34, 136),
    (204, 102, 119),
    (17, 119, 51),
    (68, 170, 153),
    (170, 68, 153),
    (153, 153, 51),
)
_SHOWN_AS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def expert_color(expert: int) -> RGB:
    """The colour of an expert, by its number."""
    return _COLORS[expert % len(_COLORS)]


def ink_on(color: RGB) -> RGB:
    """Black or white, whichever is read better on a colour (Rec. 601 luma)."""
    red, green, blue = color
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else (255, 255, 255)


def token_label(token: str, token_id: int) -> str:
    """A token in one line without control characters; a special one by its id."""
    if not token:
        return f"#{token_id}"
    return "".join(_shown(character) for character in token)


def _shown(character: str) -> str:
    if character in _SHOWN_AS:
        return _SHOWN_AS[character]
    return "·" if unicodedata.category(character).startswith("C") else character
