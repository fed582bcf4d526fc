"""A toy under load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.toy_platform import Toy, toy_platform


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    with toy_platform(tmp_path) as running:
        yield running
