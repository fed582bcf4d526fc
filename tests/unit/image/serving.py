"""The service over scripted parts, and wishes for it."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from services.image.checks import Parameters
from services.image.config import ImageConfig
from services.image.events import Made, ServiceEvent
from services.image.metrics import ImageMetrics
from services.image.service import ImageService
from services.image.sources import SentPicture
from services.image.wishes import Edit, Wish
from services.runtime.metrics import PrometheusRegistry
from services.runtime.peer import Caller
from tests.fakes.image_server import CONFIG, ScriptedRanker
from tests.fakes.scripted_images import ScriptedEngine, ScriptedSettings, scripted_model

__all__ = ["GREY", "Served", "edit_wish", "made", "serving", "wish"]

LABELS = {"service": "image", "model": "m"}


class Served:
    """The service over scripted parts."""

    def __init__(
        self,
        config: ImageConfig = CONFIG,
        engine: ScriptedEngine | None = None,
        ranker: ScriptedRanker | None = None,
    ) -> None:
        self.engine = engine or ScriptedEngine()
        self.ranker = ranker or ScriptedRanker()
        self.registry = PrometheusRegistry(LABELS)
        metrics = ImageMetrics(self.registry)
        self.service = ImageService(config, scripted_model(), self.engine, self.ranker, metrics)

    def make(self, wish: Wish, seconds: float = 10.0) -> AsyncGenerator[ServiceEvent, None]:
        caller = Caller("request-1", None, time.monotonic() + seconds)
        return self.service.make(wish, caller)

    async def events(self, wish: Wish, seconds: float = 10.0) -> list[ServiceEvent]:
        return [event async for event in self.make(wish, seconds)]

    def sample(self, name: str, **labels: str) -> float:
        value = self.registry.collector.get_sample_value(f"orrery_{name}", LABELS | labels)
        return 0.0 if value is None else value


@asynccontextmanager
async def serving(
    settings: ScriptedSettings | None = None, config: ImageConfig = CONFIG
) -> AsyncIterator[Served]:
    served = Served(config, ScriptedEngine(settings))
    yield served
    served.service.close()
    assert served.engine.holds == 0


def wish(prompt: str = "a red circle", **parameters: Any) -> Wish:
    defaults = {"num_steps": 4, "seed": 7}
    return Wish(prompt, Parameters(**(defaults | parameters)))


def made(events: list[ServiceEvent]) -> list[Made]:
    return [event for event in events if isinstance(event, Made)]


def sent(pixels: np.ndarray) -> SentPicture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return SentPicture(buffer.getvalue())


GREY = np.full((64, 64, 3), 90, np.uint8)


def edit_wish(
    image: np.ndarray = GREY,
    mask: np.ndarray | None = None,
    strength: float | None = 0.5,
    **rest: Any,
) -> Wish:
    edit = Edit(sent(image), None if mask is None else sent(mask), strength)
    return replace(wish(**rest), edit=edit)
