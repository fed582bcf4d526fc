"""An engine over the model of toys."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator

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


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """The collector sees only what the test makes: in a long session there are millions more."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
