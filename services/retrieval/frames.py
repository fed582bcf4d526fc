"""Messages between two processes over a pipe: two lengths, a JSON header, raw bytes.

The lengths are big-endian unsigned 32-bit numbers. Knows nothing of what is said.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Any

import orjson

__all__ = ["read_frame", "write_frame"]

_LENGTHS = struct.Struct(">II")


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next frame's header and bytes; None at the stream's end, whole frame or not."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_length, data_length = _LENGTHS.unpack(lengths)
    header, data = stream.read(header_length), stream.read(data_length)
    if len(header) < header_length or len(data) < data_length:
        return None
    return orjson.loads(header), data


def write_frame(stream: IO[bytes], header: Mapping[str, Any], data: bytes = b"") -> None:
    """Writes one frame. The header may hold dataclasses."""
    encoded = orjson.dumps(header)
    stream.write(_LENGTHS.pack(len(encoded), len(data)))
    stream.write(encoded)
    stream.write(data)
    stream.flush()
