"""The engine's errors in the taxonomy."""

from __future__ import annotations

import inspect

import pytest

from services.engine import errors as engine
from services.generation.engine_errors import to_taxonomy
from services.runtime import errors as runtime

RAISED = {
    engine.InvalidRequestError: engine.InvalidRequestError("n", "expected less"),
    engine.ContextTooLongError: engine.ContextTooLongError("prompt", "too long"),
    engine.QueueFullError: engine.QueueFullError("full", 2.5),
    engine.ExpertsUnavailableError: engine.ExpertsUnavailableError("the experts of layer 3"),
    engine.EngineDeadError: engine.EngineDeadError("oneDNN: could not create a primitive"),
    engine.ConfigError: engine.ConfigError("k", "wrong"),
    engine.CheckpointError: engine.CheckpointError("missing"),
    engine.EngineError: engine.EngineError("else"),
}
EXPECTED = {
    engine.InvalidRequestError: runtime.InvalidRequest,
    engine.ContextTooLongError: runtime.ContextTooLong,
    engine.QueueFullError: runtime.Overloaded,
    engine.ExpertsUnavailableError: runtime.DependencyDown,
    engine.EngineDeadError: runtime.NotReady,
    engine.ConfigError: None,
    engine.CheckpointError: None,
    engine.EngineError: None,
}


def test_every_engine_error_is_considered() -> None:
    classes = {
        cls for _, cls in inspect.getmembers(engine, inspect.isclass) if cls is not engine.__class__
    }
    assert {cls for cls in classes if issubclass(cls, engine.EngineError)} == set(EXPECTED)


@pytest.mark.parametrize("cls", list(EXPECTED))
def test_engine_error_becomes_its_class(cls: type[engine.EngineError]) -> None:
    translated = to_taxonomy(RAISED[cls])
    expected = EXPECTED[cls]
    assert type(translated) is expected if expected else translated is None


def test_field_and_retry_survive() -> None:
    invalid = to_taxonomy(RAISED[engine.InvalidRequestError])
    full = to_taxonomy(RAISED[engine.QueueFullError])
    assert invalid is not None
    assert invalid.field == "n"
    assert full is not None
    assert full.retry_after_s == 2.5


def test_a_dead_engine_does_not_say_what_killed_it() -> None:
    assert "oneDNN" not in str(to_taxonomy(RAISED[engine.EngineDeadError]))


def test_foreign_errors_are_nobodys_fault_but_ours() -> None:
    assert to_taxonomy(KeyError("x")) is None
