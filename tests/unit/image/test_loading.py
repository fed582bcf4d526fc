"""From the settings to a model in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.image.config import ImageConfig
from services.image.loading import load
from services.image.loop.stats import NullObserver
from tests.fakes.random_diffusion import random_diffusion_folder


@pytest.mark.parametrize(("defaults", "expected"), [({}, True), ({"karras_sigmas": False}, False)])
async def test_karras_levels_of_the_folder_hold_where_the_settings_say_nothing(
    tmp_path: Path, defaults: dict[str, Any], expected: bool
) -> None:
    folder = random_diffusion_folder(tmp_path, use_karras_sigmas=True)
    config = ImageConfig(model_name="m", model_path=str(folder), num_threads=1, defaults=defaults)
    loaded = await load(config, str, NullObserver())
    assert loaded.model.default_karras_sigmas is expected
    await loaded.engine.close()


async def test_default_size_that_the_model_cannot_make_is_refused(tmp_path: Path) -> None:
    folder = random_diffusion_folder(tmp_path)
    defaults: dict[str, Any] = {"width": 30}
    config = ImageConfig(model_name="m", model_path=str(folder), num_threads=1, defaults=defaults)
    with pytest.raises(ValueError, match=r"defaults\.width: expected a multiple of 4"):
        await load(config, str, NullObserver())
