"""Pixels of a PNG as the image service writes them: 8 bits, RGB, not interlaced.

For a terminal that can show nothing but coloured characters. The client brings no library that
reads pictures, and needs none for all else. PNG specification, third edition, sections 9 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["read_rgb_rows"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB8 = (8, 2, 0, 0, 0)  # depth, colour type, compression, filter method, interlacing
_CHANNELS = 3


def read_rgb_rows(png: bytes, *, max_pixels: int) -> list[bytes] | None:
    """The rows from the top, 3 bytes for each pixel; None for another kind of file or too many."""
    if not png.startswith(_SIGNATURE):
        return None
    chunks = list(_chunks(png))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != struct.calcsize(">II5B"):
        return None
    width, height, *kind = struct.unpack(">II5B", chunks[0][1])
    if tuple(kind) != _RGB8 or not 0 < width * height <= max_pixels:
        return None
    stride = width * _CHANNELS + 1  # a filter's number, then the bytes it was applied to
    packed = b"".join(body for name, body in chunks if name == b"IDAT")
    try:
        raw = zlib.decompressobj().decompress(packed, height * stride)
    except zlib.error:
        return None
    if len(raw) != height * stride or any(number > 4 for number in raw[::stride]):
        return None
    rows = [bytes(stride - 1)]
    for at in range(0, len(raw), stride):
        rows.append(_unfiltered(raw[at], raw[at + 1 : at + stride], rows[-1]))
    return rows[1:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 8 <= len(png):
        size, name = struct.unpack_from(">I4s", png, at)
        yield name, png[at + 8 : at + 8 + size]
        at += size + 12  # with the checksum behind it


def _unfiltered(number: int, row: bytes, above: bytes) -> bytes:
    """A row as it was: each byte had a guess taken away, made of those left, above and between."""
    done = bytearray(row)
    for i, value in enumerate(row):
        left, between = (done[i - _CHANNELS], above[i - _CHANNELS]) if i >= _CHANNELS else (0, 0)
        guess = (0, left, above[i], (left + above[i]) // 2, _paeth(left, above[i], between))[number]
        done[i] = (value + guess) & 0xFF
    return bytes(done)


def _paeth(left: int, above: int, between: int) -> int:
    estimate = left + above - between
    return min((left, above, between), key=lambda byte: abs(estimate - byte))
