"""A picture as its model was trained to see it: resized, cut from the middle, scaled, normalised.

Reads the settings of transformers' `CLIPImageProcessor` and makes the same numbers, in two parts:
the geometry, picture by picture with Pillow, which lets go of the interpreter lock and leaves small
`uint8` arrays to wait for a batch; and rescaling with normalisation, one multiplication and one
addition for a whole batch. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.runtime.model_files import ModelFolderError

__all__ = ["Pixels", "Preprocessing", "load_preprocessing"]

Pixels: TypeAlias = npt.NDArray[np.uint8]  # [height, width, 3], RGB
Channels: TypeAlias = tuple[float, float, float]

# Where transformers looks, the first one first: within the processor, or in a file of its own.
_PROCESSOR_FILE = "processor_config.json"
_PREPROCESSOR_FILE = "preprocessor_config.json"

# What CLIPImageProcessor takes for what its file leaves out.
_DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
    "do_convert_rgb": True,
}
_KINDS = (
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPImageProcessorPil",
    "CLIPFeatureExtractor",
)
# Settings that change no picture here: names, and how arrays are handed over.
_INERT = frozenset(
    {
        "image_processor_type",
        "feature_extractor_type",
        "processor_class",
        "auto_map",
        "data_format",
        "input_data_format",
        "return_tensors",
        "device",
        "disable_grouping",
        "default_to_square",
        "_valid_processor_keys",
    }
)
# What is longer than so many cuts is resized in the middle alone: the rest would be thrown away.
_MAX_WHOLE_RATIO = 32


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Width and height are of pictures; a pixel becomes `scale * pixel + offset`, by channel."""

    width: int
    height: int
    shortest_edge: int | None  # None: resized to `size`, whatever the proportions
    size: tuple[int, int] | None  # (width, height); both None: not resized
    resample: Image.Resampling
    scale: Channels
    offset: Channels

    def apply(self, picture: Image.Image) -> Pixels:
        """`[height, width, 3]` of an RGB picture. Takes time: not for the event loop."""
        resized = self._resize(picture)
        left = (resized.width - self.width) // 2
        top = (resized.height - self.height) // 2
        # What lies outside a picture that is too small is black, as transformers pads.
        cut = resized.crop((left, top, left + self.width, top + self.height))
        return np.asarray(cut, dtype=np.uint8)

    def digest(self) -> bytes:
        """Equal for equal preprocessing, 16 bytes."""
        return hashlib.blake2b(repr(self).encode(), digest_size=16).digest()

    def _resize(self, picture: Image.Image) -> Image.Image:
        if self.size is not None:
            return _resized(picture, self.size, self.resample)
        if self.shortest_edge is None:
            return picture
        short, long = sorted(picture.size)
        new_long = int(self.shortest_edge * long / short)
        upright = picture.width <= picture.height
        size = (self.shortest_edge, new_long) if upright else (new_long, self.shortest_edge)
        if new_long <= _MAX_WHOLE_RATIO * max(self.width, self.height, self.shortest_edge):
            return _resized(picture, size, self.resample)
        return self._resize_middle(picture, size)

    def _resize_middle(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        """What resizing to `size` makes of the part that is cut out.

        A picture of 1 x 16,000 pixels would otherwise be made 224 x 3,584,000 for its middle.
        Pillow rounds between its two passes and chooses their order by size: pixels may differ a
        little.
        """
        widths = _middle(size[0], self.width)
        heights = _middle(size[1], self.height)
        per_x, per_y = picture.width / size[0], picture.height / size[1]
        right = min(widths[1] * per_x, picture.width)  # rounding may not leave the picture
        bottom = min(heights[1] * per_y, picture.height)
        box = (widths[0] * per_x, heights[0] * per_y, right, bottom)
        kept = (widths[1] - widths[0], heights[1] - heights[0])
        return picture.resize(kept, self.resample, box=box)


def load_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Of the pictures that the folder's model reads, `image_size` pixels on either side.

    Raises `ModelFolderError` for a setting that is not understood, or another size.
    """
    settings = _read(folder)
    where = f"{folder}: {_PREPROCESSOR_FILE}"
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if kind is not None and kind not in _KINDS:
        raise ModelFolderError(f"{where}: expected a CLIPImageProcessor, got {kind!r}")
    for name, value in settings.items():
        unset = value is None or (value is False and name.startswith(("do_", "use_")))
        if name not in _DEFAULTS and name not in _INERT and not unset:
            raise ModelFolderError(f"{where}: {name}: not understood")
    known = {
        name: default if settings.get(name) is None else settings[name]
        for name, default in _DEFAULTS.items()
    }
    try:
        made = _preprocessing(known)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{where}: {error}") from error
    if (made.width, made.height) != (image_size, image_size):
        raise ModelFolderError(
            f"{where}: makes pictures of {made.width} x {made.height}; the model reads "
            f"{image_size} x {image_size}"
        )
    return made


def _read(folder: Path) -> Mapping[str, Any]:
    for name, key in ((_PROCESSOR_FILE, "image_processor"), (_PREPROCESSOR_FILE, None)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelFolderError(f"{path}: {error}") from error
        settings = content.get(key) if key else content
        if isinstance(settings, dict):
            return settings
    raise ModelFolderError(f"{folder}: has no {_PREPROCESSOR_FILE}")


def _preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    shortest_edge, size = _target_size(settings)
    if settings["do_center_crop"]:
        width, height = _width_and_height("crop_size", settings["crop_size"])
    elif size is not None:
        width, height = size
    else:
        raise ValueError("do_center_crop: expected true where size gives no width and height")
    scale, offset = _affine(settings)
    return Preprocessing(
        width=width,
        height=height,
        shortest_edge=shortest_edge,
        size=size,
        resample=Image.Resampling(settings["resample"]),
        scale=scale,
        offset=offset,
    )


def _target_size(settings: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """The shortest edge, or width and height; neither where nothing is resized."""
    if not settings["do_resize"]:
        return None, None
    size = settings["size"]
    if isinstance(size, int):  # as the first CLIP folders have it
        return _positive("size", size), None
    if set(size) == {"shortest_edge"}:
        return _positive("size.shortest_edge", size["shortest_edge"]), None
    return None, _width_and_height("size", size)


def _width_and_height(name: str, size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return (_positive(name, size),) * 2
    if set(size) != {"height", "width"}:
        raise ValueError(f"{name}: expected height and width, or shortest_edge of size alone")
    return _positive(name, size["width"]), _positive(name, size["height"])


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 1 << 13:
        raise ValueError(f"{name}: expected 1 to {1 << 13} pixels, got {value!r}")
    return value


def _affine(settings: Mapping[str, Any]) -> tuple[Channels, Channels]:
    """`(factor * pixel - mean) / std` as `scale * pixel + offset`."""
    factor = float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0
    if not settings["do_normalize"]:
        return (factor,) * 3, (0.0,) * 3
    mean = _channels("image_mean", settings["image_mean"])
    std = _channels("image_std", settings["image_std"])
    if min(std) <= 0:
        raise ValueError(f"image_std: expected numbers above 0, got {list(std)}")
    scale = (factor / std[0], factor / std[1], factor / std[2])
    return scale, (-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2])


def _channels(name: str, values: Any) -> Channels:
    if isinstance(values, int | float):
        values = [values] * 3
    if len(values) != 3:
        raise ValueError(f"{name}: expected three numbers, got {values!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _resized(
    picture: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resample)


def _middle(length: int, kept: int) -> tuple[int, int]:
    """Where the middle `kept` of `length` begins and ends; all of it where there is no more."""
    if length <= kept:
        return 0, length
    start = (length - kept) // 2
    return start, start + kept
