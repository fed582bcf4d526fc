"""Pictures as a caller hands them over: bytes, a path, or an open file.

What is not bytes yet is read when the call is made, where reading may block. Looks into no picture:
the service says what it takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from orrery.errors import InvalidRequestError
from orrery.requests.common import read_file
from orrery.v1 import common_pb2

__all__ = ["ImageInput", "Picture", "as_images", "is_image", "read_pictures"]

# The platform's services take messages of 16 MiB; one that is larger they refuse without a word of
# what in it is too large.
_MAX_BYTES = 15 << 20

ImageInput: TypeAlias = bytes | str | os.PathLike[str] | BinaryIO
"""The bytes of a PNG, JPEG, WebP, GIF or BMP picture; its path; or a file open for reading bytes.

A file is read from where it stands, and not closed.
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """Where in a request a picture goes, and where it comes from; `field` names it in errors."""

    message: common_pb2.ImageContent
    source: ImageInput
    field: str

    def __post_init__(self) -> None:
        if not is_image(self.source):
            kind = type(self.source).__name__
            raise TypeError(f"{self.field}: expected bytes, a path or an open file, got {kind}")

    def read(self) -> None:
        """Puts the picture into the request. Blocks, unless it is bytes.

        Raises:
            TypeError: The file is open for reading text.
            InvalidRequestError: It cannot be read, or is larger than a message.
        """
        source = self.source
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        elif isinstance(source, str | os.PathLike):
            data = read_file(Path(source), self.field, max_bytes=_MAX_BYTES)
        else:
            data = self._read_open_file(source)
        if len(data) > _MAX_BYTES:
            raise InvalidRequestError(
                f"{self.field}: larger than {_MAX_BYTES} bytes", field=self.field
            )
        self.message.data = data

    def _read_open_file(self, file: BinaryIO) -> bytes:
        try:
            data: Any = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # the second for a file that is closed
            raise InvalidRequestError(
                f"{self.field}: cannot be read: {error}", field=self.field
            ) from error
        if not isinstance(data, bytes):
            raise TypeError(f"{self.field}: expected a file open for reading bytes, got text")
        return data


def is_image(value: object) -> bool:
    """Whether it is one picture, in one of the forms of `ImageInput`."""
    return isinstance(value, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(
        value, "read"
    )


def as_images(images: ImageInput | Iterable[ImageInput], field: str = "images") -> list[ImageInput]:
    """One bare picture is a list of one."""
    if is_image(images):
        return [cast(ImageInput, images)]
    if not isinstance(images, Iterable):
        raise TypeError(f"{field}: expected pictures, got {type(images).__name__}")
    return list(cast(Iterable[ImageInput], images))


def read_pictures(pictures: Sequence[Picture]) -> None:
    """Puts all of them into their request; see `Picture.read`."""
    for picture in pictures:
        picture.read()
