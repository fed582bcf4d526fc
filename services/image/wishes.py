"""A call's wish, checked and read: the pictures to be made for it.

Everything that can be refused is refused here, cheapest first, before the engine sees anything:
`check` costs nothing, and says how many pictures there are to be; `read` decodes.
Knows nothing of protobuf, nor of how pictures are made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from services.image.checks import (
    Batch,
    Parameters,
    check_batch,
    check_negative_prompt,
    check_num_tokens,
    check_prompt,
    check_sampling,
    check_size,
    check_strength,
    invalid,
)
from services.image.config import ImageConfig
from services.image.served_model import ServedModel
from services.image.sources import SentPicture, decode_source, sent_size
from services.image.types import PictureRequest, Sampling, Source
from services.runtime.errors import InvalidRequest
from services.runtime.offload import offload_if_large
from services.runtime.pictures import PictureLimits

__all__ = ["CheckedWish", "Edit", "Offload", "PicturesToMake", "Wish", "WishReader"]

T = TypeVar("T")


class Offload(Protocol):
    """Runs work on pixels beside the event loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Edit:
    """A picture to begin from. `strength`: None = the default."""

    image: SentPicture
    mask: SentPicture | None
    strength: float | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What one call asks for."""

    prompt: str
    parameters: Parameters
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class CheckedWish:
    """A wish whose parameters are right; its texts and pictures have not been read."""

    wish: Wish
    sampling: Sampling
    batch: Batch
    strength: float  # of an edit


@dataclass(frozen=True, slots=True)
class PicturesToMake:
    """What becomes of a wish: one request for each picture."""

    requests: tuple[PictureRequest, ...]
    num_prompt_tokens: int


class WishReader:
    """Reads the wishes of one application's callers."""

    def __init__(self, config: ImageConfig, model: ServedModel, offload: Offload) -> None:
        self._config = config
        self._model = model
        self._offload = offload
        limits = config.limits
        self._picture_limits = PictureLimits(limits.max_image_bytes, limits.max_image_pixels)

    def check(self, wish: Wish) -> CheckedWish:
        """Raises `InvalidRequest`."""
        config, parameters = self._config, wish.parameters
        max_bytes = config.limits.max_prompt_bytes
        check_prompt(wish.prompt, max_bytes)
        sampling = check_sampling(parameters, config, self._model)
        check_negative_prompt(parameters.negative_prompt, sampling, max_bytes)
        batch = check_batch(parameters, config)
        strength = 1.0
        if wish.edit is not None:
            strength = check_strength(wish.edit.strength, sampling.num_steps, config)
        return CheckedWish(wish, sampling, batch, strength)

    async def read(self, checked: CheckedWish) -> PicturesToMake:
        """Raises `InvalidRequest`, `ContextTooLong`."""
        wish, batch = checked.wish, checked.batch
        negative = wish.parameters.negative_prompt
        num_tokens = await self._num_tokens(wish.prompt, "prompt")
        if negative:
            num_tokens += await self._num_tokens(negative, "parameters.negative_prompt")
        source = None
        if wish.edit is None:
            width, height = self._size(wish.parameters)
        else:
            source = await self._source(wish.edit, wish.parameters, checked.strength)
            height, width = source.pixels.shape[:2]
        requests = tuple(
            PictureRequest(
                prompt=wish.prompt,
                negative_prompt=negative,
                width=width,
                height=height,
                seed=seed,
                sampling=checked.sampling,
                source=source,
                preview_every=batch.preview_every,
                preview_kind=batch.preview_kind,
            )
            for seed in batch.seeds
        )
        return PicturesToMake(requests, num_tokens)

    async def _num_tokens(self, text: str, field: str) -> int:
        count = partial(self._model.count_tokens, text)
        num_tokens = await offload_if_large(len(text), count)
        check_num_tokens(num_tokens, self._model, field)
        return num_tokens

    def _size(self, parameters: Parameters) -> tuple[int, int]:
        model = self._model
        width = model.default_width if parameters.width is None else parameters.width
        height = model.default_height if parameters.height is None else parameters.height
        check_size(width, height, self._config, model)
        return width, height

    async def _source(self, edit: Edit, parameters: Parameters, strength: float) -> Source:
        limits = self._picture_limits
        sent = await self._offload(partial(sent_size, edit.image, edit.mask, limits))
        width = sent[0] if parameters.width is None else parameters.width
        height = sent[1] if parameters.height is None else parameters.height
        try:
            check_size(width, height, self._config, self._model)
        except InvalidRequest as error:
            if parameters.width is not None and parameters.height is not None:
                raise
            expected = error.message.partition(": ")[2]
            raise invalid(
                "image",
                f"is {sent[0]} x {sent[1]} pixels, and no other size is asked for: {expected}",
            ) from error
        decoded = await self._offload(
            partial(decode_source, edit.image, edit.mask, (width, height), limits)
        )
        return Source(decoded.pixels, strength, decoded.mask)
