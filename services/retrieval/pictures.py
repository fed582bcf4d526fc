"""Pictures as documents: which files are some, and what is known of one before it is embedded.

A picture has no text: its words are its document's title, its vector is made of its pixels, which
the embedding service decodes; here only what the file says of itself is read. Knows nothing of
vectors, collections and Redis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from services.retrieval.readers import ReadDocument
from services.retrieval.types import Chunk
from services.runtime.errors import InvalidRequest
from services.runtime.pictures import MEDIA_TYPES, PictureLimits, inspect_picture

__all__ = ["is_picture", "naming_the_picture", "read_picture"]

_ENDINGS = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp"})
# What such files begin with. BMP's "BM" may begin a text as well: there the name decides.
_MARK = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP", re.DOTALL)


def is_picture(data: bytes, file_name: str, media_type: str) -> bool:
    """Whether a file is a picture, or claims to be one."""
    claimed = media_type.partition(";")[0].strip().lower()
    ending = file_name.rpartition(".")[2].lower()
    return claimed in MEDIA_TYPES or ending in _ENDINGS or _MARK.match(data) is not None


def read_picture(data: bytes, media_type: str, limits: PictureLimits, field: str) -> ReadDocument:
    """One chunk without text. Raises `InvalidRequest` naming `field`."""
    info = inspect_picture(data, limits, field, media_type=media_type)
    size = {"image_width": float(info.width), "image_height": float(info.height)}
    return ReadDocument("", info.media_type, size, (Chunk("", 0, 0),))


@contextmanager
def naming_the_picture(field: str) -> Iterator[None]:
    """Around a call that embeds one: where its pixels, which only the embedding service has seen,
    are refused, the error names the field that the picture came in here.
    """
    try:
        yield
    except InvalidRequest as error:
        there = error.field or ""
        if not there.startswith("images["):  # not the picture's fault
            raise
        reason = error.message.removeprefix(f"{there}: ")
        raise InvalidRequest(f"{field}: {reason}", field=field) from error
