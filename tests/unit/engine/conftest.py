"""What the engine's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.engine.engine import LLMEngine


@pytest.fixture(autouse=True)
def engines_give_everything_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After each test, every engine that it made is whole, idle, and all of its blocks are free."""
    engines: list[LLMEngine] = []
    make = LLMEngine.__init__

    def make_and_note(self: LLMEngine, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        engines.append(self)

    monkeypatch.setattr(LLMEngine, "__init__", make_and_note)
    yield
    for engine in engines:
        engine.check_integrity()
        assert not engine.has_unfinished(), "a test has left requests in its engine"
        load = engine.load()
        assert load.num_running == load.num_waiting == 0
        assert load.num_free_blocks == load.num_blocks
