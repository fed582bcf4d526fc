"""Pictures on terminals: which protocol, which escape sequences, and reading PNG without Pillow."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orrery.cli.picture_display import (
    block_lines,
    iterm2_sequence,
    kitty_sequence,
    protocol_of,
    show_picture,
)
from orrery.cli.png_pixels import read_rgb_rows
from orrery.results import GeneratedImage, ImageRecipe
from services.image.png import Provenance, encode_png

RECIPE = ImageRecipe(1, 2, 3.0, 0.0, "ddim", 0.0, False, None)


def png_of(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def made(png: bytes, width: int = 64, height: int = 64) -> GeneratedImage:
    return GeneratedImage(0, png, width, height, RECIPE, None)


# --- which protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({"KITTY_WINDOW_ID": "1", "STY": "1.pts"}, None),
    ],
)
def test_terminal_says_which_protocol_it_has(
    variables: dict[str, str], protocol: str | None
) -> None:
    assert protocol_of(variables) == protocol


# --- escape sequences -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3071, 3072, 3073, 10_000])
def test_kitty_gets_the_picture_in_chunks_of_which_only_the_last_is_marked(size: int) -> None:
    png = bytes(i % 251 for i in range(size)) or b"x"
    sequences = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty_sequence(png, 32))
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in sequences) == kitty_sequence(
        png, 32
    )
    assert base64.b64decode("".join(data for _, data in sequences)) == png
    assert all(len(data) <= 4096 for _, data in sequences)
    more = [dict(key.split("=") for key in keys.split(","))["m"] for keys, _ in sequences]
    assert more == ["1"] * (len(sequences) - 1) + ["0"]
    assert sequences[0][0].startswith("a=T,f=100,q=2,c=32,")
    assert all("a=" not in keys for keys, _ in sequences[1:])


def test_iterm2_gets_the_picture_in_one() -> None:
    sequence = iterm2_sequence(b"picture", 40)
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):(.*)\x07", sequence)
    assert found is not None
    assert dict(pair.split("=") for pair in found[1].split(";")) == {
        "inline": "1",
        "size": "7",
        "width": "40",
        "preserveAspectRatio": "1",
    }
    assert base64.b64decode(found[2]) == b"picture"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(picture: GeneratedImage, stdout: io.StringIO | None = None) -> str:
    """What is written to standard output, by default a terminal."""
    stdout = stdout or FakeTerminal()
    with contextlib.redirect_stdout(stdout):
        show_picture(picture)
    return stdout.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of a terminal with 80 columns and all colours, which says nothing of itself."""
    for name in ("TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "TMUX", "STY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("width", "columns"), [(64, 32), (512, 64), (2048, 80)])
def test_small_pictures_are_shown_larger_and_large_ones_fit_the_terminal(
    terminal: None, monkeypatch: pytest.MonkeyPatch, width: int, columns: int
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert f",c={columns}," in shown(made(b"png", width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    assert f";width={columns};" in shown(made(b"png", width))


def test_other_terminals_get_coloured_half_blocks(terminal: None) -> None:
    image = Image.new("RGB", (2, 4), "red")
    image.putpixel((1, 3), (0, 0, 255))
    first, second = shown(made(png_of(image), 2, 4)).splitlines()
    assert first.count("▀") == second.count("▀") == 2
    assert "38;2;255;0;0;48;2;255;0;0" in first
    assert "38;2;255;0;0;48;2;0;0;255" in second


def test_nothing_is_shown_where_there_is_no_terminal_or_no_colour(
    terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = made(png_of(Image.new("RGB", (2, 2))), 2, 2)
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(picture) == ""
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(picture) == ""
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert shown(picture, io.StringIO()) == ""
    assert shown(picture) != ""


# --- half blocks ------------------------------------------------------------------------------


def test_half_blocks_are_two_pixels_high_and_shrink_what_is_too_wide() -> None:
    def lines(width: int, height: int) -> list[str]:
        png = png_of(Image.new("RGB", (width, height), "green"))
        return [line.plain for line in block_lines(png, 64)]

    assert lines(64, 64) == ["▀" * 64] * 32
    assert lines(128, 64) == ["▀" * 64] * 16
    assert lines(3, 5) == ["▀" * 3] * 3
    assert lines(1000, 1) == ["▀" * 64]


def test_half_blocks_shrink_a_picture_to_what_it_shows() -> None:
    image = Image.new("RGB", (256, 256), "white")
    image.paste((255, 0, 0), (0, 0, 128, 256))
    line = next(block_lines(png_of(image), 64))
    colours = [span.style.color.triplet for span in line.spans]
    assert colours == [(255, 0, 0)] * 32 + [(255, 255, 255)] * 32


def test_half_blocks_of_what_cannot_be_read_are_none() -> None:
    for data in (b"", b"not a picture", png_of(Image.new("L", (2, 2)))):
        assert list(block_lines(data, 64)) == []


# --- reading PNG ------------------------------------------------------------------------------


@given(
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    filters=st.lists(st.integers(0, 4), min_size=9, max_size=9),
    data=st.binary(min_size=3 * 81, max_size=3 * 81),
)
@settings(max_examples=60)
def test_rows_are_those_that_pillow_reads_whatever_the_filters(
    width: int, height: int, filters: list[int], data: bytes
) -> None:
    stride = 3 * width
    rows = (data[y * stride : (y + 1) * stride] for y in range(height))
    raw = b"".join(bytes([number]) + row for number, row in zip(filters, rows, strict=False))
    png = file_of(struct.pack(">II5B", width, height, 8, 2, 0, 0, 0), zlib.compress(raw))
    found = read_rgb_rows(png, max_pixels=81)
    assert found is not None
    assert b"".join(found) == Image.open(io.BytesIO(png)).tobytes()


def test_pictures_of_the_service_can_be_read() -> None:
    image = Image.effect_noise((64, 48), 80).convert("RGB")
    told = Provenance("a red circle", "", "m", "hash", {"seed": 1})
    rows = read_rgb_rows(encode_png(np.asarray(image), told), max_pixels=64 * 48)
    assert rows is not None
    assert b"".join(rows) == image.tobytes()


def test_too_many_pixels_are_not_unpacked() -> None:
    png = png_of(Image.new("RGB", (10, 10)))
    assert read_rgb_rows(png, max_pixels=100) is not None
    assert read_rgb_rows(png, max_pixels=99) is None


@pytest.mark.parametrize("size", range(0, 80, 7))
def test_a_file_that_is_cut_off_is_not_read(size: int) -> None:
    png = png_of(Image.effect_noise((8, 8), 80).convert("RGB"))
    assert read_rgb_rows(png[:size], max_pixels=100) is None


def test_files_that_lie_are_not_read() -> None:
    header = struct.pack(">II5B", 1, 1, 8, 2, 0, 0, 0)
    for first, packed in (
        (header, zlib.compress(b"\5abc")),  # no such filter
        (header, zlib.compress(b"\0ab")),  # too few bytes
        (header, b"not packed"),
        (struct.pack(">II5B", 0, 1, 8, 2, 0, 0, 0), zlib.compress(b"")),
        (struct.pack(">II5B", 1, 1, 8, 2, 0, 0, 1), zlib.compress(b"\0abc")),  # interlaced
        (header[:5], zlib.compress(b"\0abc")),
    ):
        assert read_rgb_rows(file_of(first, packed), max_pixels=100) is None
    assert read_rgb_rows(file_of(header, zlib.compress(b"\0abc")), max_pixels=9) == [b"abc"]


def file_of(header: bytes, packed: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
