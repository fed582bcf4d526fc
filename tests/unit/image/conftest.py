"""An engine over the model of toys."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.image.loop.async_engine import AsyncImageEngine
from tests.unit.image.asking import LIMITS, is_empty, until
from tests.unit.image.toy_model import ToyModel


@pytest.fixture
def model() -> ToyModel:
    return ToyModel()


@pytest.fixture
async def engine(model: ToyModel) -> AsyncIterator[AsyncImageEngine]:
    """Whatever a test did, nothing is held once its streams are closed."""
    engine = AsyncImageEngine(model, LIMITS)
    yield engine
    for gate in (model.prompts, model.steps, model.pixels):
        gate.open()
    await until(lambda: is_empty(engine))
    engine.check_integrity()
    await engine.close()
