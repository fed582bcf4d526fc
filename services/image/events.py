"""What happens to a call's pictures, as its caller sees it. Knows nothing of protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from services.image.types import Latents, PictureRequest, Times

__all__ = ["Advanced", "Done", "LatentPreview", "Made", "PngPreview", "ServiceEvent"]


@dataclass(frozen=True, slots=True)
class Advanced:
    """A picture waits (step 0), or went a step further."""

    index: int
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class PngPreview:
    index: int
    step: int
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class LatentPreview:
    index: int
    step: int
    latents: Latents


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A picture, and what made it."""

    index: int
    request: PictureRequest
    png: bytes
    times: Times
    for_clip: bytes = b""  # the picture as CLIP is shown it, where it is to be ranked
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: what the call took. Pictures are made side by side, so that the stages of
    one call are those of the whole: until the first step of the first, until the last step of the
    last.
    """

    queue_s: float
    denoise_s: float
    decode_s: float
    rank_s: float
    num_prompt_tokens: int


ServiceEvent: TypeAlias = Advanced | PngPreview | LatentPreview | Made | Done
