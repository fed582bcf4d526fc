"""Pictures that clients send: out of base64, and a mask in OpenAI's sense into the contract's.

Work in proportion to a picture's size is done beside the event loop. Knows nothing of HTTP; whether
a picture is one is for the service that takes it to say.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from orrery.v1 import embedding_pb2
from orrery.v1.common_pb2 import ImageContent
from services.gateway.catalog import ServedModel
from services.gateway.schemas.pictures import EncodedPicture
from services.runtime.errors import InvalidRequest
from services.runtime.offload import offload_if_large
from services.runtime.pictures import PictureLimits, decode_transparency

__all__ = [
    "INLINE_BYTES",
    "check_embeds_pictures",
    "decoded_pictures",
    "embeds_pictures",
    "painted_mask",
]

# Up to so many bytes, coding base64 takes less time than handing it to a thread.
INLINE_BYTES = 64 << 10
# A picture of no bytes takes as long as so many.
_BYTES_PER_PICTURE = 4 << 10


def embeds_pictures(info: embedding_pb2.GetEmbeddingModelResponse) -> bool:
    """Whether a model embeds pictures beside texts."""
    return embedding_pb2.MODALITY_IMAGE in info.modalities


def check_embeds_pictures(
    model: ServedModel[embedding_pb2.GetEmbeddingModelResponse], field: str
) -> None:
    """Raises `InvalidRequest` naming `field` for a model that embeds texts alone."""
    if not embeds_pictures(model.info):
        raise InvalidRequest(
            f"{field}: the model {model.name!r} embeds texts and no pictures", field=field
        )


async def decoded_pictures(
    pictures: Sequence[tuple[str, EncodedPicture]], max_bytes: int | None = None
) -> list[ImageContent]:
    """The pictures, each given with the field that a refusal names.

    Raises `InvalidRequest`: for one of more than `max_bytes` (None: the body's limit is enough)
    before anything is decoded, and for what is no base64.
    """
    if max_bytes is not None:
        for field, picture in pictures:
            if picture.num_bytes > max_bytes + 2:  # the padding counts as if it were bytes
                raise InvalidRequest(
                    f"{field}: {picture.num_bytes} bytes; expected at most {max_bytes}", field=field
                )
    size = sum(picture.num_bytes + _BYTES_PER_PICTURE for _, picture in pictures)
    return await offload_if_large(size, partial(_decode, pictures), above=INLINE_BYTES)


def _decode(pictures: Sequence[tuple[str, EncodedPicture]]) -> list[ImageContent]:
    return [
        ImageContent(data=_bytes_of(picture, field), media_type=picture.media_type)
        for field, picture in pictures
    ]


def _bytes_of(picture: EncodedPicture, field: str) -> bytes:
    try:
        return base64.b64decode(picture.data[picture.start :], validate=True)
    except (binascii.Error, ValueError) as error:  # a ValueError: not ASCII
        raise InvalidRequest(f"{field}: expected base64", field=field) from error


async def painted_mask(
    data: bytes, limits: PictureLimits, field: str, threads: Executor
) -> ImageContent:
    """OpenAI's mask, of which the wholly transparent is painted anew, as the contract's: black and
    white, where white is painted anew. The `threads` bound how many are open at once: a file of a
    few kilobytes can hold pixels that fill 100 MiB.

    Raises `InvalidRequest` for one without transparency: black and white on their own mean one
    thing to some programs and the opposite to others.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, _mask, data, limits, field)


def _mask(data: bytes, limits: PictureLimits, field: str) -> ImageContent:
    alpha = decode_transparency(data, limits, field)
    if alpha is None or not alpha.histogram()[0]:
        raise InvalidRequest(
            f"{field}: expected a picture of which something is wholly transparent: that is "
            "painted anew",
            field=field,
        )
    # One bit for each pixel: however the mask was made, it stays small.
    painted = alpha.point(lambda value: 255 if value == 0 else 0, mode="1")
    file = io.BytesIO()
    painted.save(file, "PNG")
    return ImageContent(data=file.getvalue(), media_type="image/png")
