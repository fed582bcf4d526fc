"""What calls of the image service return: pictures, and what is told while they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = [
    "GeneratedImage",
    "GeneratedImages",
    "ImageEvent",
    "ImageLoad",
    "ImageModelInfo",
    "ImagePreview",
    "ImageProgress",
    "ImageRecipe",
    "ImageTiming",
    "ImagesDone",
    "LatentTensor",
]


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """One picture waits, or went a step further.

    Attributes:
        image_index: Which of the `n` pictures.
        step: Steps done; 0 = it waits for a place, or begins.
        num_steps: Of this picture; an edit does fewer than asked for.
    """

    image_index: int
    step: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class LatentTensor:
    """Numbers that the model would decode to a picture: [channels, height, width].

    `data` are 32-bit floats, least significant byte first; with NumPy,
    `numpy.frombuffer(latent.data, "<f4").reshape(latent.shape)`.
    """

    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """How a picture looks after some of its steps: a PNG, or latents where those were asked for."""

    image_index: int
    step: int
    png: bytes | None
    latent: LatentTensor | None


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """How a picture was made: the same recipe, prompt and weights make it again.

    `scheduler` is `ddim`, `euler`, `euler_ancestral` or `dpm_solver_pp_2m`; `strength` is that of
    an edit.
    """

    seed: int
    num_steps: int
    guidance_scale: float
    guidance_rescale: float
    scheduler: str
    eta: float
    karras_sigmas: bool
    strength: float | None


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A picture. `similarity` to the prompt is there where the pictures were ranked: a cosine."""

    image_index: int
    png: bytes
    width: int
    height: int
    recipe: ImageRecipe
    similarity: float | None

    @property
    def seed(self) -> int:
        """Of its noise."""
        return self.recipe.seed

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the PNG, with prompt and recipe as text in it. Raises `OSError`."""
        Path(path).write_bytes(self.png)


@dataclass(frozen=True, slots=True)
class ImageTiming:
    """Where the server's time went.

    Attributes:
        queue_ns: Until the first step of the first picture.
        denoise_ns: From the first step to the last.
        total_ns: From arrival to the end.
    """

    queue_ns: int = 0
    denoise_ns: int = 0
    decode_ns: int = 0
    rank_ns: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class ImagesDone:
    """All pictures have come. `prompt_tokens` are those of prompt and negative prompt."""

    timing: ImageTiming
    prompt_tokens: int


ImageEvent: TypeAlias = ImageProgress | ImagePreview | GeneratedImage | ImagesDone
"""What a stream of pictures tells; `ImagesDone` comes last."""


@dataclass(frozen=True, slots=True)
class GeneratedImages:
    """The pictures of a call: the best first where they were ranked, otherwise by their index."""

    request_id: str
    model: str
    images: tuple[GeneratedImage, ...]
    timing: ImageTiming
    prompt_tokens: int

    @property
    def image(self) -> GeneratedImage:
        """The first of them."""
        return self.images[0]


@dataclass(frozen=True, slots=True)
class ImageModelInfo:
    """A served diffusion model, its limits and its defaults.

    Attributes:
        prediction_type: `epsilon` or `v_prediction`.
        size_multiple: Width and height must be multiples of it.
        schedulers: Those that can be asked for.
        loras: Names of those merged into the weights.
        can_rank: Whether `rank_by_similarity` can be asked for.
        max_image_bytes: Of a picture to edit; `max_image_pixels` once it is decoded.
        default_strength: Of an edit.
        default_karras_sigmas: Of pictures whose scheduler is not `ddim`.
    """

    model: str
    aliases: tuple[str, ...]
    dtype: str
    weight_hash: str
    created_s: int
    prediction_type: str
    max_prompt_tokens: int
    size_multiple: int
    default_width: int
    default_height: int
    max_width: int
    max_height: int
    max_pixels: int
    default_num_steps: int
    max_num_steps: int
    default_guidance_scale: float
    max_guidance_scale: float
    default_scheduler: str
    schedulers: tuple[str, ...]
    max_n: int
    loras: tuple[str, ...]
    can_rank: bool
    max_image_bytes: int
    max_image_pixels: int
    default_strength: float
    default_preview_every_num_steps: int
    default_karras_sigmas: bool


@dataclass(frozen=True, slots=True)
class ImageLoad:
    """What an image service is doing. Steps and pictures done are counted since its start.

    Attributes:
        num_running_images: Pictures in the batch; `max_running_images` are its places.
        num_decoding_images: Pictures whose steps are done.
        state_bytes: Latents and scheduler state held for all of these.
    """

    num_running: int
    num_running_images: int
    num_waiting_images: int
    max_running_images: int
    num_decoding_images: int
    num_steps_done: int
    num_images_done: int
    resident_bytes: int
    state_bytes: int
    process_id: int
