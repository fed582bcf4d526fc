"""Settings of the image service."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from services.image.config import ImageConfig, RequestLimitsConfig
from services.image.png import encode_png
from services.image.types import SchedulerName
from services.runtime.message_size import MAX_MESSAGE_BYTES

MODEL = {"model_name": "m", "model_path": "models/m"}


def test_names_and_aliases_are_served_and_nothing_else() -> None:
    config = ImageConfig(**MODEL, aliases=("n",))
    assert [config.serves(name) for name in ("", "m", "n", "o")] == [True, True, True, False]


def test_defaults_make_pictures_as_users_of_stable_diffusion_expect() -> None:
    defaults = ImageConfig(**MODEL).defaults
    assert (defaults.num_steps, defaults.guidance_scale) == (30, 7.5)
    assert defaults.scheduler is SchedulerName.DPM_SOLVER_PP_2M


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"model": "x"}, "model"),
        ({"model_name": ""}, "model_name"),
        ({"dtype": "int8"}, "dtype"),
        ({"device": "gpu"}, "device"),
        ({"tile_size": 1}, "tile_size"),
        ({"loras": [{"name": "l"}]}, "path"),
        ({"loras": [{"name": "l", "path": "l", "scale": float("nan")}]}, "scale"),
        ({"loras": [{"name": "l", "path": "a"}, {"name": "l", "path": "b"}]}, "loras"),
        ({"batching": {"rows": 1}}, "rows"),
        ({"batching": {"max_waiting": 5}}, "batching.max_waiting"),
        ({"defaults": {"scheduler": "pndm"}}, "scheduler"),
        ({"defaults": {"guidance_scale": float("inf")}}, "guidance_scale"),
        ({"defaults": {"guidance_scale": 31.0}}, "defaults.guidance_scale"),
        ({"defaults": {"num_steps": 151}}, "defaults.num_steps"),
        ({"defaults": {"scheduler": "ddim", "karras_sigmas": True}}, "karras_sigmas"),
        ({"limits": {"max_pixels": 6 << 20}}, "max_pixels"),
        ({"limits": {"max_image_bytes": 16 << 20}}, "max_image_bytes"),
    ],
)
def test_wrong_key_is_refused_and_named(args: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        ImageConfig(**(MODEL | args))


def test_pictures_and_uploads_within_the_limits_fit_the_platforms_messages() -> None:
    """Whatever is configured: a PNG of noise is as large as its pixels."""
    limits = ImageConfig(**MODEL).limits
    texts = 2 * limits.max_prompt_bytes
    assert 2 * limits.max_image_bytes + texts < MAX_MESSAGE_BYTES
    most = RequestLimitsConfig(max_pixels=5 << 20, max_image_bytes=15 << 20)
    pixels = np.random.default_rng(0).integers(0, 256, (2048, most.max_pixels // 2048, 3), np.uint8)
    assert len(encode_png(pixels)) + texts < MAX_MESSAGE_BYTES
    assert most.max_image_bytes + texts < MAX_MESSAGE_BYTES
